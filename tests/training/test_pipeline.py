"""The steps of a run in their order, without Airflow and without torch: what they hand on, make, refuse and leave."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from include.errors import GateError, UserError
from include.jobs.images import load_images
from include.jobs.sagemaker_requests import check_limits
from include.jobs.spec import read_spec
from include.models import registry
from include.storage import list_files, location, read_json, read_parquet
from include.training import compute, packing, pipeline
from include.training.config import PretrainConfig
from include.training.corpus_manifest import CorpusManifest, read_corpus
from include.training.presets import PRESETS
from tests.training.corpus.curation import jsonl, write_texts
from tests.training.corpus.test_near_duplicates import with_changes
from tests.training.corpus.texts import GERMAN, english
from tests.training.release_parts import evaluation, per_document, plant_corpus, plant_output
from tests.training.steps import Steps

QUESTION = "Who keeps the ticket of the teacher in the old library when all of the others wait outside in the rain?"
PLANTED = {
    "copy.md": english(0, 200),
    "near.md": with_changes(english(1, 200), 1),
    "german.md": GERMAN,
    "quiz.md": f"{english(900)}\n\n{QUESTION}\n",
    "good.md": english(901),
}
RECORDS = 80
SMALL: dict[str, Any] = {"vocab_size": 500, "batch_tokens": 512, "steps": 8}
SHARD_BYTES = 1 << 16
"""The least that there is; the records are more."""
SEGMENTS = ("segment_1", "segment_2", "segment_3", "segment_4")
PLACE = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "deployment": "x"}


def write_sources(folder: Path) -> dict[str, Any]:
    """Params of two sources, one of records that have licences of their own, and of an evaluation set."""
    records = [{"body": english(number, 200), "license": f"CC-BY-{number % 2 + 3}.0"} for number in range(RECORDS)]
    write_texts(folder / "handbook", PLANTED)
    (folder / "notes.jsonl").write_bytes(jsonl([*records, {"body": english(902)}]))
    (folder / "quiz.jsonl").write_bytes(jsonl([{"question": QUESTION}]))
    notes = {"name": "notes", "uri": str(folder / "notes.jsonl"), "kind": "records", "text_field": "body"}
    handbook = {"name": "handbook", "uri": str(folder / "handbook"), "licence": "MIT"}
    sets = {"evaluation_sets": [str(folder / "quiz.jsonl")], "shard_bytes": SHARD_BYTES, "held_out_share": 0.05}
    return {"sources": [notes, handbook], **sets, **SMALL}


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """A machine whose rate is given: measuring it takes longer than most of these steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compute, "measure_matmul_flops", lambda: 1e11)
        yield


def written(root: str) -> dict[str, Any]:
    """When each file of the corpora and of what they were made of was written."""
    found = list_files(location(root) / "default" / "training")
    return {path: about["mtime"] for path, about in found.items() if not path.startswith("runs/")}


# A run that goes well


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Steps, dict[str, Any], dict[str, Any]]]:
    """A run up to its jobs' specs, the specs, and the run's Params."""
    folder = tmp_path_factory.mktemp("pipeline")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FMOPS_STORAGE_ROOT", (folder / "storage").as_uri())
        params = write_sources(folder)
        steps = Steps(**params)
        yield steps, steps.run(), params


def corpus_of(steps: Steps) -> CorpusManifest:
    return read_corpus(steps.packed["uri"], with_digests=True)


def test_what_is_planted_is_left_out_and_all_else_is_packed(first: Any) -> None:
    steps = first[0]
    assert steps.listed["shards"] == [0, 1]
    report = read_json(location(steps.packed["uri"]) / "report.json")
    dropped = {reason: one["documents"] for step in report["steps"] for reason, one in step["dropped"].items()}
    reasons = ("no_licence", "other_language", "contaminated", "exact_duplicate", "near_duplicate")
    assert dropped == dict.fromkeys(reasons, 1)
    corpus = corpus_of(steps)
    assert corpus.train.documents + corpus.held_out.documents == RECORDS + 1
    assert (steps.packed["tokens"], steps.packed["held_out_tokens"]) == (corpus.train.tokens, corpus.held_out.tokens)
    tables = [read_parquet(location(steps.packed["uri"]) / file.table).to_pylist() for file in corpus.files]
    origins = {(row["source"], row["path"]) for table in tables for row in table}
    assert origins == {("notes", ""), ("handbook", "good.md")}, "of duplicates the first source's is kept"


def test_licences_go_along(first: Any) -> None:
    files = corpus_of(first[0]).files
    tokens = {name: sum(file.licences.get(name, 0) for file in files) for name in ("CC-BY-3.0", "CC-BY-4.0", "MIT")}
    assert min(tokens.values()) > 0
    assert sum(tokens.values()) == sum(file.tokens for file in files)


def test_the_segments_specs_are_a_chain_over_all_steps(first: Any) -> None:
    steps, specs, _ = first
    assert list(specs) == [*SEGMENTS, "evaluate"]
    read = {name: read_spec({**spec, **PLACE}) for name, spec in specs.items()}
    for spec in read.values():
        assert spec.channels == {"corpus": steps.packed["uri"]} and not spec.force
        assert (spec.resources.image, spec.resources.instance_type) == ("torch-cpu", None)
    told = [read[name].hyperparameters for name in SEGMENTS]
    assert [(one["from_step"], one["until_step"]) for one in told] == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert {json.dumps({**one, "from_step": 0, "until_step": 0}) for one in told} == {
        json.dumps({**told[0], "until_step": 0})
    }
    plan = read_json(PretrainConfig(**steps.config).run_home / "plan.json")
    assert [read[name].max_runtime_s for name in SEGMENTS] == plan["cost"]["max_runtime_s"]


def test_another_run_of_the_same_makes_no_file_again_and_orders_the_same(first: Any) -> None:
    steps, specs, params = first
    before = written(steps.config["root"])
    again = Steps("run-2", **params)
    assert again.run() == specs, "so its jobs' outputs are found"
    assert {name: again.listed[name] for name in again.listed if name != "listing"} == {
        name: steps.listed[name] for name in steps.listed if name != "listing"
    }
    remade = {path.rpartition("/")[2] for path, at in written(steps.config["root"]).items() if before.get(path) != at}
    # What decides between duplicates is written again, since parts may have come; with the same bytes.
    assert remade == {"part-00000.parquet", "part-00001.parquet", "deduplication.json"}
    assert not any(before[path] != at for path, at in written(steps.config["root"]).items() if "corpora" in path)


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({"steps": 12, "learning_rate": 1e-3, "batch_tokens": 256, "baseline_margin": 0.1, "model_name": "x"}, True),
        ({"vocab_size": 501}, False),
        ({"seed": 1}, False),
        ({"held_out_share": 0.06}, False),
        ({"evaluation_sets": []}, False),
    ],
)
def test_the_corpus_is_another_where_its_documents_or_tokens_are(first: Any, params: Any, same: bool) -> None:
    steps, _, given = first
    other = Steps("run-3", **{**given, **params})
    listed = pipeline.list_documents(other.config)
    assert (listed["corpus"] == steps.listed["corpus"]) is same


def test_of_two_runs_that_pack_one_corpus_at_once_the_slower_takes_the_faster_ones(
    first: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = {**first[2], "seed": 5}
    slow, fast = Steps("slow", **params), Steps("fast", **params)
    for steps in (slow, fast):
        steps.plan()
        steps.curate()
        steps.pack()
    read_part = packing._read_part

    def overtaken(*arguments: Any) -> Any:
        monkeypatch.setattr(packing, "_read_part", read_part)
        fast.finish()  # which removes what the parts left to be joined
        return read_part(*arguments)

    monkeypatch.setattr(packing, "_read_part", overtaken)
    assert slow.finish() == fast.packed
    assert corpus_of(slow).corpus_digest == slow.listed["corpus_digest"]


@pytest.mark.parametrize("size", PRESETS)
def test_on_sagemaker_each_size_orders_jobs_that_it_takes(size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_TARGET", "aws")
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", f"memory://order-{size}")
    steps = Steps(size=size, spot=True)
    pipeline.plan(steps.config, {"bytes": 10**9})
    steps.packed = {"uri": "s3://bucket/corpora/x"}
    for name, spec in steps.order().items():
        read = read_spec({**spec, **PLACE, "channels": {**spec["channels"], "previous": "s3://bucket/jobs/y/output"}})
        check_limits(read)
        assert load_images().instance_type(read) == PRESETS[size].instance_type
        assert load_images().uri(read.resources.image, "us-east-1")
        wanted, preset = read.resources, PRESETS[size]
        assert (wanted.image, wanted.spot) == (preset.image, True)
        assert wanted.instance_count == (preset.instance_count if name in SEGMENTS else 1)


# Inputs that cannot be used


def records(folder: Path, documents: int) -> dict[str, Any]:
    """A source of short texts."""
    (folder / "notes.jsonl").write_bytes(jsonl({"text": english(number)} for number in range(documents)))
    return {"name": "notes", "uri": str(folder / "notes.jsonl"), "kind": "records", "licence": "MIT"}


def folder_of(folder: Path, texts: dict[str, str]) -> dict[str, Any]:
    (folder / "docs").mkdir()
    write_texts(folder / "docs", texts)
    return {"name": "docs", "uri": str(folder / "docs"), "licence": "MIT"}


REFUSED: list[tuple[str, dict[str, Any], str, int]] = [
    # what, Params, what is said; how far the run came: files of the run, of curation, of the corpus
    ("unknown size", {"size": "huge"}, r"^size='huge' is no preset: write one of tiny, ", 0),
    ("unknown kind", {}, r"^sources\[0\]: kind='bucket': Input should be 'folder', 'records' or 'index'$", 0),
    ("no such folder", {}, r"^source '\S+/none' is not a folder that can be read; give a folder", 0),
    ("empty folder", {}, r"^source docs: \S+/docs has no .*; left aside: nothing. Give a source that has", 0),
    ("no such set", {"evaluation_sets": ["/none.jsonl"]}, r"^evaluation set file:///none.jsonl is not there", 1),
    ("few bytes", {"batch_tokens": 65_536}, r"^the sources hold [\d,]+ bytes, less than one batch of batch_tokens=", 1),
    ("over budget", {"usd_per_hour": 9, "budget_usd": 0.01}, r"^budget_usd=0.01: steps=8 on 1 x this machine take", 1),
    (
        "no price",
        {"budget_usd": 1, "usd_per_hour": 1e6},
        r"the budget allows no training: the start of 5 jobs alone",
        1,
    ),
    (
        "nothing kept",
        {"languages": ["de"]},
        r"^no document is left after the filters: 30 read, other_language 30; see ",
        2,
    ),
    (
        "vocabulary",
        {"vocab_size": 20_000},
        r"^vocab_size=20000 is more than .* Allowed are 360 to \d+, or give more",
        2,
    ),
    (
        "few tokens",
        {"batch_tokens": 16_384},
        r"^corpus: [\d,]+ train tokens .* one batch of 16,384 tokens needs 64,",
        3,
    ),
    (
        "none held out",
        {"held_out_share": 0},
        r"^corpus: 0 held_out tokens in 0 documents .* give more documents, hold",
        3,
    ),
]


@pytest.mark.parametrize(("what", "params", "said", "reached"), REFUSED, ids=[one[0] for one in REFUSED])
def test_what_cannot_be_used_is_refused_in_one_line_and_leaves_nothing_half_made(
    root: str, tmp_path: Path, what: str, params: dict[str, Any], said: str, reached: int
) -> None:
    source = records(tmp_path, 30)
    if what == "unknown kind":
        source["kind"] = "bucket"
    elif what == "no such folder":
        source = {**folder_of(tmp_path, {}), "uri": str(tmp_path / "none")}
    elif what == "empty folder":
        source = folder_of(tmp_path, {})
    with pytest.raises(UserError, match=said) as raised:
        Steps(sources=[source], **{**SMALL, **params}).run()
    assert "\n" not in str(raised.value)
    left = {path.partition("/")[0] for path in list_files(location(root) / "default" / "training")}
    assert left == {0: set(), 1: {"runs"}, 2: {"runs", "curated"}, 3: {"runs", "curated", "corpora"}}[reached]


def test_a_corpus_that_is_too_small_for_one_run_serves_another(root: str, tmp_path: Path) -> None:
    params = {**SMALL, "sources": [records(tmp_path, 30)]}
    large = Steps(**{**params, "batch_tokens": 16_384})
    with pytest.raises(UserError, match="one batch of 16,384 tokens needs 64"):
        large.run()
    before = written(root)
    small = Steps("run-2", **params)
    assert set(small.run()) == {*SEGMENTS, "evaluate"}
    assert small.packed["uri"] == large.listed["corpus"]
    assert [path for path, at in written(root).items() if "corpora" in path and before[path] != at] == []


# Gate, release, register


@pytest.mark.parametrize(
    ("bits", "spread", "params", "verdict"),
    [
        (1.5, 0.0, {}, "passed"),
        (1.5, 0.0, {"baseline_margin": 0.2}, "passed"),
        (1.5, 0.0, {"baseline_margin": 0.3}, "refused"),
        (2.1, 0.0, {"accept_doubt": True}, "refused"),
        (1.95, 0.5, {}, "refused"),
        (1.95, 0.5, {"accept_doubt": True}, "passed_in_doubt"),
        (1.95, 0.5, {"accept_doubt": True, "baseline_margin": 0.03}, "refused"),
    ],
)
def test_the_gate_takes_margin_and_doubt_from_the_params(
    root: str, bits: float, spread: float, params: dict[str, Any], verdict: str
) -> None:
    config = Steps(**params).config
    output = plant_output(
        f"{root}/o", evaluation(bits_per_byte=bits), **{"per_document.json": per_document(bits, spread)}
    )
    if verdict == "refused":
        with pytest.raises(GateError, match=r"^the model is refused: .* of ngram"):
            pipeline.gate(config, {"output_uri": output})
        return
    decision = pipeline.gate(config, {"output_uri": output})
    assert decision["verdict"] == verdict and len(decision["reasons"]) == 2
    assert len(json.dumps(decision)) < 1000


def evaluated(root: str, name: str, bits: float) -> tuple[Steps, list[dict[str, Any]]]:
    """A run whose model was evaluated, by planted outputs, and its jobs; `name` makes its configuration its own."""
    steps = Steps(f"run-{name}", usd_per_hour=3.6, approve_above_usd=100)
    pipeline.plan(steps.config, {"bytes": 10**6})
    planted = evaluation(bits_per_byte=bits, config_digest=name * 64)
    output = plant_output(f"{root}/output-{name}", planted)
    jobs = [{"job": f"{one}-{name}", "output_uri": output, "billed_s": 100.0} for one in (*SEGMENTS, "evaluate")]
    return steps, jobs


def released(root: str, name: str, bits: float) -> dict[str, Any]:
    steps, jobs = evaluated(root, name, bits)
    return pipeline.release(steps.config, {"uri": f"{root}/corpus"}, jobs, dag_id="pretraining")


def test_a_release_tells_what_all_jobs_cost_and_a_repeated_one_is_the_same(root: str) -> None:
    plant_corpus(f"{root}/corpus", ("Apache-2.0", "MIT"))
    told = released(root, "a", 1.5)
    assert (told["model"], told["version"], told["alias"]) == ("docs-lm", 1, "champion")
    found = registry.find(root, "default", "docs-lm")
    assert (found.cost.instance_seconds, found.cost.usd) == (500.0, pytest.approx(0.5))
    assert found.licences == ("Apache-2.0", "MIT")
    assert found.lineage.jobs == tuple(f"{one}-a" for one in (*SEGMENTS, "evaluate"))
    assert (found.config["from_step"], found.config["vocab_size"]) == (750, 2048)
    assert released(root, "a", 1.5) == told
    assert len(json.dumps(told)) < 1000


def test_of_two_runs_that_release_at_once_the_better_is_champion(root: str) -> None:
    plant_corpus(f"{root}/corpus")
    runs = {bits: evaluated(root, name, bits) for name, bits in (("a", 1.5), ("b", 1.4))}
    together = Barrier(len(runs))

    def release(bits: float) -> dict[str, Any]:
        steps, jobs = runs[bits]
        together.wait(60)
        return pipeline.release(steps.config, {"uri": f"{root}/corpus"}, jobs, dag_id="pretraining")

    with ThreadPoolExecutor(len(runs)) as pool:
        told = dict(zip(runs, pool.map(release, runs), strict=True))
    versions = registry.list_versions(root, "default", "docs-lm")
    assert [one.version for one in versions] == [1, 2]
    for one in versions:
        registry.verify(one, with_digests=True)
    assert registry.read_aliases(root, "default", "docs-lm").champion == told[1.4]["version"]
    assert registry.find(root, "default", "docs-lm").metrics["held_out.bits_per_byte"] == 1.4


def test_where_there_is_no_mlflow_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FMOPS_STORAGE_ROOT", "memory://no-mlflow")
    assert pipeline.register(Steps().config) is None
