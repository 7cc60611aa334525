from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from include.documents.demo import demo_home
from include.errors import UserError
from include.training.corpus.config import CurationConfig, curation_digest
from include.training.corpus.sources import CorpusSource, parse_sources

GOOD = {"name": "docs", "uri": "s3://bucket/docs/", "licence": " CC BY\n4.0 "}


def test_sources_are_read_from_params(tmp_path: Path) -> None:
    (docs, mine, index) = parse_sources(
        [
            GOOD,
            {"name": "mine", "uri": str(tmp_path), "kind": "records"},
            {"name": "ours", "uri": "handbook", "kind": "index", "licence": "internal"},
        ],
        "memory://none",
    )
    assert (docs.uri, docs.licence, docs.kind) == ("s3://bucket/docs", "CC BY 4.0", "folder")
    assert (mine.uri, mine.licence) == (tmp_path.as_uri(), None)
    assert index.uri == "handbook"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "No Name"}, "sources[0]: name='No Name': String should match pattern"),
        ({"licence": None}, "sources[0]: docs: licence is missing, such as Apache-2.0"),
        ({"licence": " "}, "sources[0]: docs: licence is missing"),
        ({"licence": None, "kind": "index", "uri": "docs"}, "licence is missing"),
        ({"kind": "index"}, "uri='s3://bucket/docs' must be the name of an index"),
        ({"uri": "http://host/x"}, "uri='http://host/x' must begin with one of file://, s3://, memory://"),
        ({"uri": "docs"}, "uri='docs' must begin with one of"),
        ({"kind": "web"}, "kind='web': Input should be 'folder', 'records' or 'index'"),
        ({"language": "English"}, "language='English': String should match pattern"),
        ({"colour": "red"}, "colour='red': Extra inputs are not permitted"),
    ],
)
def test_a_source_that_is_wrong_is_refused_in_one_line(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_sources([{**GOOD, **changed}], "memory://none")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_name_is_given_once() -> None:
    with pytest.raises(UserError, match="the name 'docs' is given twice"):
        parse_sources([GOOD, {**GOOD, "uri": "s3://other"}], "memory://none")


def test_the_default_is_the_demo(root: str) -> None:
    (source,) = parse_sources(None, root)
    assert (source.name, source.uri, source.licence) == ("documentation", str(demo_home(root)), "Apache-2.0")
    assert (demo_home(root) / "configuration" / "core.md").exists()
    assert source.name_of("rest-api/dag.jsonl") == "rest-api"


def test_a_top_folder_may_be_a_source_of_its_own() -> None:
    source = CorpusSource(**GOOD, split_by_folder=True)
    assert source.name_of("guides/a/b.md") == "guides"
    assert source.name_of("Größe & Co/a.md") == "gr-e-co"
    assert source.name_of("_/a.md") == source.name_of("a.md") == source.name_of("") == "docs"
    assert CorpusSource(**GOOD).name_of("guides/b.md") == "docs"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_characters": 0}, "Input should be greater than or equal to 1"),
        ({"min_characters": 5, "max_characters": 4}, "min_characters=5 is more than max_characters=4"),
        ({"languages": ["en", "any"]}, "any stands alone"),
        ({"languages": []}, "must be codes such as en or de, or any alone"),
        ({"languages": ["EN"]}, "must be codes"),
        ({"held_out_share": 0.9}, "Input should be less than or equal to 0.5"),
    ],
)
def test_a_setting_that_is_wrong_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CurationConfig(**values)


def test_every_setting_names_another_corpus() -> None:
    changed = {
        "min_characters": 1,
        "max_characters": 2_000,
        "languages": ("de",),
        "min_language_score": 0.9,
        "min_alphabetic_share": 0.9,
        "max_duplicate_line_share": 0.9,
        "max_mean_word": 9.0,
        "min_near_duplicate": 0.9,
        "held_out_share": 0.1,
        "max_held_out_bytes": 1,
        "seed": 1,
        "document_seconds": 1.0,
        "document_memory_mb": 200,
    }
    assert changed.keys() | {"evaluation_sets"} == CurationConfig.model_fields.keys()
    configs = [CurationConfig(**{name: value}) for name, value in changed.items()]
    digests = {curation_digest("listing", config, "sets") for config in [CurationConfig(), *configs]}
    digests |= {curation_digest("other", CurationConfig(), "sets"), curation_digest("listing", CurationConfig(), "x")}
    assert len(digests) == len(changed) + 3
    moved = CurationConfig(evaluation_sets=("s3://moved/set.jsonl",))
    assert curation_digest("listing", moved, "sets") in digests
