"""An ingestion's evaluation: made and given questions, a gate that refuses a bad index and passes a good one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from include import storage
from include.errors import GateError, UserError
from include.rag import pipeline
from include.rag.quality import QualityReport
from include.rag.versions import index_home
from tests.rag.ingestion import Ingestion, version_store

SUBJECTS = {
    "kettle": "boil water before brewing leaves slowly",
    "bicycle": "tighten brakes whenever wheels wobble downhill",
    "garden": "plant seedlings after frost leaves valleys",
    "violin": "tune strings before concerts start tonight",
    "harbour": "anchor boats whenever storms threaten valleys",
    "bakery": "knead dough until bubbles appear slowly",
}
PLACES = ["london", "oslo", "quito", "lagos", "seoul", "lima", "cairo", "delhi"]
COUNT = len(SUBJECTS) * len(PLACES)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Documents that share their words pairwise, and that only all of a sentence's words tell apart."""
    folder = tmp_path / "source"
    folder.mkdir()
    for subject, habit in SUBJECTS.items():
        for place in PLACES:
            other = PLACES[(PLACES.index(place) + 1) % len(PLACES)]
            (folder / f"{subject}-{place}.md").write_text(
                f"# Note\n\nPeople near {place} usually {habit} because their {subject} demands patience.\n\n"
                f"Visitors arriving from {other} rarely know anything about this custom beforehand.\n"
            )
    return folder


@pytest.fixture
def ingestion(root: str, corpus: Path) -> Ingestion:
    return Ingestion(root, str(corpus), {"documents_per_shard": 50, "chunk_tokens": 64})


def evaluated(ingestion: Ingestion, run_id: str) -> tuple[dict[str, Any], QualityReport]:
    ingestion.run(run_id)
    return again(ingestion, run_id)


def again(ingestion: Ingestion, run_id: str) -> tuple[dict[str, Any], QualityReport]:
    value = pipeline.evaluate(ingestion.prepare(run_id), dag_id="test", task_id="evaluate")
    return value, storage.read_record(storage.location(value["quality_uri"]), QualityReport)


def plant_bad_index(root: str) -> None:
    """Give every chunk another document's text and vector, as a mix-up while writing would."""
    store: Any = version_store(root)
    rows = store.rows(list(store.documents())).sort_by("id").to_pylist()
    for row, other in zip([dict(row) for row in rows], rows[7:] + rows[:7], strict=True):
        row |= {"text": other["text"], "vector": other["vector"]}
        store.replace([row["doc_id"]], store.rows([]).from_pylist([row], schema=store._schema))


def test_a_good_index_passes_and_leaves_a_report_beside_its_manifest(ingestion: Ingestion) -> None:
    value, report = evaluated(ingestion, "run-1")
    assert report.num_questions >= 20
    assert (report.documents_sampled, report.question_source) == (COUNT, "made")
    assert [mode.mode for mode in report.modes] == ["full_text", "dense", "hybrid"]
    assert report.of("hybrid").scores["recall_at_5"].mean > 0.8
    assert value["verdict"] == pipeline.gate(value) == "passed"
    folder = storage.location(value["report_uri"]).parent
    assert {"manifest.json", "retrieval.html", "retrieval.json"} <= {path.name for path in folder.iterdir()}
    html = (folder / "retrieval.html").read_text()
    assert "Passed" in html
    assert "<svg" in html


def test_a_planted_bad_index_is_refused_by_name_of_what_it_missed(ingestion: Ingestion, root: str) -> None:
    ingestion.run("run-1")
    plant_bad_index(root)
    value, report = again(ingestion, "run-1")
    assert value["verdict"] == "refused"
    with pytest.raises(GateError, match=r"index 'test' is refused: recall_at_5 0\.\d+ .* lies below 0\.5 entirely"):
        pipeline.gate(value)
    assert report.decision is not None
    assert len(report.decision.deciding) == 10


def test_the_gate_can_be_switched_off(ingestion: Ingestion, root: str) -> None:
    ingestion.run("run-1")
    plant_bad_index(root)
    ingestion.params |= {"min_recall_at_5": 0, "min_mrr": 0}
    assert pipeline.gate(again(ingestion, "run-1")[0]) == "not_judged"


def test_an_unchanged_index_is_not_asked_again_but_judged_by_new_thresholds(
    ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = evaluated(ingestion, "run-1")
    monkeypatch.setattr("include.rag.evaluate._ask", lambda *_: pytest.fail("asked again"))
    _, second = evaluated(ingestion, "run-2")
    assert (second.run_id, second.questions, second.modes) == ("run-2", first.questions, first.modes)
    ingestion.params["min_mrr"] = 1
    value, _ = evaluated(ingestion, "run-3")
    assert value["verdict"] in ("refused", "passed_in_doubt")


def test_a_changed_index_is_asked_again(ingestion: Ingestion, corpus: Path) -> None:
    evaluated(ingestion, "run-1")
    (corpus / "new.md").write_text(
        "# New\n\nPeople near bergen usually knit sweaters because their winters are long.\n"
    )
    _, report = evaluated(ingestion, "run-2")
    assert (report.ledger_version, report.documents_sampled) == (2, COUNT + 1)


def test_people_s_own_questions_are_asked(ingestion: Ingestion, tmp_path: Path) -> None:
    file = tmp_path / "questions.jsonl"
    rows = [
        {"question": f"{place} {subject}", "relevant": [f"{subject}-{place}.md"]}
        for subject in SUBJECTS
        for place in PLACES
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ingestion.params["golden"] = str(file)
    value, report = evaluated(ingestion, "run-1")
    assert (report.num_questions, report.question_source) == (COUNT, f"file://{file}")
    assert value["verdict"] == "passed"
    file.write_text(json.dumps({"question": "anything", "relevant": ["missing.md"]}))
    _, report = evaluated(ingestion, "run-2")
    assert report.of("hybrid").scores["mrr"].mean == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "questions.jsonl' cannot be read"),
        ('{"question": 1}\n', "golden questions, line 1: question=1 must be a text"),
    ],
)
def test_questions_that_cannot_be_read_are_refused_before_any_work(
    ingestion: Ingestion, root: str, tmp_path: Path, text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "questions.jsonl").write_text(text)
    ingestion.params["golden"] = str(tmp_path / "questions.jsonl")
    with pytest.raises(UserError) as error:
        ingestion.prepare("run-1")
    assert message in str(error.value)
    assert not storage.location(root).exists()


def test_a_newcomer_s_few_files_are_too_few_to_judge(root: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("# A\n\nOne short note.\n")
    value, report = evaluated(Ingestion(root, str(tmp_path / "notes")), "run-1")
    assert (value["verdict"], report.num_questions) == ("not_judged", 0)
    assert pipeline.gate(value) == "not_judged"
    assert storage.location(value["report_uri"]).exists()


def test_an_index_that_holds_nothing_is_not_judged(root: str, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_bytes(b"\x00")
    assert evaluated(Ingestion(root, str(tmp_path / "notes")), "run-1")[0]["verdict"] == "not_judged"


def test_a_report_that_was_cleaned_up_is_made_anew(ingestion: Ingestion, root: str) -> None:
    _, first = evaluated(ingestion, "run-1")
    shutil.rmtree((index_home(root, "default", "test") / "runs").path)
    _, second = evaluated(ingestion, "run-2")
    assert second.questions == first.questions
