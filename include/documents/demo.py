"""The demo's documents: the documentation inside the installed Airflow and provider packages, and our own samples.

| folder           | format     | made of                                                             |
|------------------|------------|---------------------------------------------------------------------|
| `configuration/` | Markdown   | the configuration sections of Airflow and its providers             |
| `cli/`           | HTML       | the commands of the command line with their arguments               |
| `rest-api/`      | JSON lines | the operations of the REST API, a file for each tag                 |
| `metrics/`       | plain text | the metrics that Airflow emits                                      |
| `guides/`        | Markdown   | the pages that packages ship, and the packages' own descriptions    |
| `reference/`     | Markdown   | the docstrings of public modules, classes and functions             |
| `samples/`       | PDF, DOCX, | documents of our own, from the folder `samples` beside this module; |
|                  | HTML, ...  | they join every corpus, beside its size                             |

Packages are read as files, never imported. The same packages give the same names and bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Literal

from upath import UPath

from include.documents.demo_sources import Package, documents
from include.errors import UserError
from include.storage import location, read_json, write_bytes, write_json

DEMO_CHARACTERS = 1_100_000
"""Size of the `demo` corpus: about 3,000 chunks of at most 200 tokens, which two cores embed in 90 seconds."""

_BUILDER = 3
"""Raise it with every change of what is built from the same packages."""

SAMPLES = Path(__file__).with_name("samples")
"""Where the documents of our own lie; a sync to MWAA takes them along."""
_SAMPLE_NAME = re.compile(r"[a-z-]+\.(csv|docx|eml|html|pdf|pptx|xlsx)")

# What a DAG's author needs first; then the other packages by name.
_ORDER = ["apache-airflow", "apache-airflow-task-sdk", "apache-airflow-providers-standard"]
_ORDER += ["apache-airflow-providers-amazon", "apache-airflow-core"]


def build(target: UPath, corpus: Literal["demo", "full"], packages: Sequence[Distribution] | None = None) -> int:
    """Bring the documents below target up to date and return their number; files that others put there stay.

    Both hold the samples; `demo` the first DEMO_CHARACTERS of the order in which demo_sources yields documents, `full`
    all. What was written is listed in a file beside the folder, `<target>.json`; as long as that matches samples and
    installed packages, no package is read. `packages` is what is installed, if not told.
    """
    installed = _installed(distributions() if packages is None else packages)
    samples = _samples()
    wanted = {
        "schema_version": 1,
        "builder": _BUILDER,
        "corpus": corpus,
        "demo_characters": DEMO_CHARACTERS,
        "packages": {one.name: one.version for one in installed},
        "samples": {name: hashlib.sha256(data).hexdigest() for name, data in samples.items()},
    }
    list_file = target.parent / f"{target.name}.json"
    found = read_json(list_file) if list_file.exists() else {}
    written = {name for name in found.get("names", ()) if _OWN_NAME.fullmatch(name)}
    if found.get("complete") and wanted.items() <= found.items() and written <= _present(target):
        return len(written)
    made = samples | {name: text.encode() for name, text in _within(corpus, documents(installed))}
    # What may be there from now on, so that a build after a crash knows what to remove.
    write_json(list_file, {**wanted, "complete": False, "names": sorted(written | made.keys())})
    for name, data in made.items():
        _write_if_changed(target / name, data)
    for name in written - made.keys():
        (target / name).unlink(missing_ok=True)
    size = sum(map(len, made.values()))
    write_json(
        list_file,
        {**wanted, "complete": True, "documents": len(made), "bytes": size, "names": sorted(made)},
    )
    return len(made)


def demo_home(root: str) -> UPath:
    """Where the demo's documents lie."""
    return location(root) / "demo" / "airflow-docs"


_OWN_NAME = re.compile(r"[a-z-]+/\w[\w.-]*")


def _installed(found: Iterable[Distribution]) -> list[Package]:
    """Airflow's packages in the fixed order; the first of a name counts, as in imports."""
    ours: dict[str, Package] = {}
    for distribution in found:
        name = re.sub(r"[-_.]+", "-", distribution.name or "").lower()
        if (name == "apache-airflow" or name.startswith("apache-airflow-")) and name not in ours:
            ours[name] = Package(name, distribution)
    if not ours:
        raise UserError("no package apache-airflow is installed here: the demo's documents are made of it")
    rank = {name: place for place, name in enumerate(_ORDER)}
    return sorted(ours.values(), key=lambda one: (rank.get(one.name, len(rank)), one.name))


def _samples() -> dict[str, bytes]:
    """The documents of SAMPLES by name; what else lies there, such as its README, is no document of the demo."""
    files = sorted(file for file in SAMPLES.iterdir() if _SAMPLE_NAME.fullmatch(file.name))
    return {f"samples/{file.name}": file.read_bytes() for file in files}


def _within(corpus: str, made: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    total = 0
    for name, text in made:
        total += len(text)
        if corpus == "demo" and total > DEMO_CHARACTERS:
            return
        yield name, text


def _present(target: UPath) -> set[str]:
    base = target.path.rstrip("/") + "/"
    found: Iterable[Any] = target.fs.find(target.path)
    return {str(path).removeprefix(base) for path in found}


def _write_if_changed(path: UPath, data: bytes) -> None:
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        pass
    write_bytes(path, data)
