"""What a task read and wrote, told to the OpenLineage that Airflow is configured for, if it is for any."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """A source, store or file, and what is known of it."""

    uri: str
    """scheme://host/path; user, password and query are left out of what is told."""
    rows: int | None = None
    """Rows written; of outputs only."""
    version: str | None = None


def record(*, inputs: Sequence[Data] = (), outputs: Sequence[Data] = ()) -> None:
    """Tell what the running task read and wrote: one more event of its run, sent before this returns.

    Does nothing without the OpenLineage provider, or where it is switched off. Lineage fails no task: what goes wrong
    is a warning in its log.
    """
    try:
        if emit := _emitter():
            emit(inputs=[_dataset(data) for data in inputs], outputs=[_output(data) for data in outputs])
    except Exception:  # a mistyped option, a provider of another version
        log.warning("lineage was not recorded", exc_info=True)


def dataset_name(uri: str) -> tuple[str, str]:
    """Namespace and name of a dataset, as OpenLineage's naming rules and Airflow's own assets have them.

    file:///a/b is (file, /a/b), s3://bucket/key is (s3://bucket, key); an index on a server follows the second.
    ValueError if there is no scheme.
    """
    scheme, found, rest = uri.partition("://")
    if not found:
        raise ValueError(f"{uri!r} is not a URI: write for example file:///data/handbook")
    if scheme == "file":
        return scheme, rest.rstrip("/") or "/"
    if scheme.startswith("http"):
        rest = re.split("[?#]", rest)[0]  # a key of S3 may hold either
    host, _, name = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}", name.strip("/") or "/"


def _emitter() -> Callable[..., None] | None:
    """The provider's own way to add datasets to the running task; None if nobody listens."""
    if "airflow.sdk" not in sys.modules:  # then no task runs in this process, and importing it takes a second
        return None
    try:
        from airflow.providers.openlineage import conf
    except ImportError:
        return None
    # Asked first, since the module that emits takes most of a second to import.
    if conf.is_disabled():
        return None
    from airflow.providers.openlineage.api import emit_dataset_lineage

    return emit_dataset_lineage


def _dataset(data: Data) -> Any:
    from openlineage.client.event_v2 import InputDataset

    namespace, name = dataset_name(data.uri)
    return InputDataset(namespace=namespace, name=name, facets=_facets(data))


def _output(data: Data) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset as statistics

    namespace, name = dataset_name(data.uri)
    written: dict[str, Any] = {}
    if data.rows is not None:
        written["outputStatistics"] = statistics.OutputStatisticsOutputDatasetFacet(rowCount=data.rows)
    return OutputDataset(namespace=namespace, name=name, facets=_facets(data), outputFacets=written)


def _facets(data: Data) -> dict[str, Any]:
    if data.version is None:
        return {}
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=data.version)}
