"""evaluate() and gate(): ask an index questions whose answers are known, report how it did, refuse it if it is bad."""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any

from include.contracts import DeadLetter, IngestionManifest
from include.documents.document import Document
from include.documents.reader import Reader
from include.documents.source import content_digest, document_id
from include.errors import DocumentError, GateError, UserError
from include.models.embeddings import embed_metered
from include.models.metering import Meter
from include.rag.config import IngestConfig
from include.rag.golden import Question, make_questions, pooled, read_questions
from include.rag.ledger import Entry, Ledger, Snapshot
from include.rag.quality import QualityReport, judge, measure
from include.rag.quality_report import page, summary
from include.rag.search import CANDIDATES, fuse, open_version
from include.rag.stages import read_stages, stage
from include.storage import digest, location, read_json, read_jsonl, read_record, write_bytes, write_json, write_record

log = logging.getLogger(__name__)

SAMPLE = 300
"""Documents that questions are made from: those with the smallest digests, so that most stay from run to run."""
QUESTIONS = 100
SHOWN = 3


def evaluate(config: IngestConfig, meter: Meter) -> dict[str, Any]:
    """Measure the run's version of the index and write `retrieval.html` and `retrieval.json` beside the manifest.

    A version that is not live is compared with the one that is, on the same questions. The same versions and the same
    questions are not asked again: the last run's answers are judged by this run's thresholds. Returns the URIs of both
    files and the verdict.
    """
    live = config.versions.live().version
    versions = [config.version] if live is None or not _is_comparable(config, live) else [config.version, live]
    lines = _golden_lines(config)
    states = [_state(config, number) for number in versions]
    asked = digest(*states, config.source, config.golden or "", *lines)
    last = config.home / "quality.json"
    found = read_json(last) if last.exists() else {}
    if found.get("asked") == asked and all(location(uri).exists() for uri in found["reports"]):
        reports = [read_record(location(uri), QualityReport) for uri in found["reports"]]
        reports[0] = reports[0].model_copy(update={"run_id": config.run_id})
        log.info("these versions were asked these questions by an earlier run; its answers are judged again")
    else:
        with stage(config, "evaluate", meter):
            reports = _measured(config, versions, lines, meter)
    limits = {"recall_at_5": config.min_recall_at_5, "mrr": config.min_mrr}
    thresholds = {name: least for name, least in limits.items() if least > 0}
    before = reports[1] if len(reports) > 1 else None
    decision = judge(reports[0], thresholds, before=before, max_drop=config.max_drop, compared=tuple(limits))
    report = reports[0].model_copy(update={"decision": decision, "live_version": live})
    uris = _write(config, report, before)
    write_json(last, {"asked": asked, "reports": uris})
    log.info("%s", summary(report))
    html = str(config.run_home / "retrieval.html")
    return {"report_uri": html, "quality_uri": uris[0], "verdict": decision.verdict}


def _is_comparable(config: IngestConfig, live: int) -> bool:
    """Whether the live version is another, whose answers can be told to be right or wrong."""
    if live == config.version:
        return False
    adopted = config.versions.get(live).adopted
    if adopted is None or adopted.source == config.source:
        return True
    log.warning(
        "v%d was adopted with source %s and is not compared with one of %s", live, adopted.source, config.source
    )
    return False


def _state(config: IngestConfig, number: int) -> str:
    """What a version holds, by a name; what somebody else built may be another at the next run."""
    adopted = config.versions.get(number).adopted
    return f"{number} {config.run_id if adopted else Ledger(config.versions.home_of(number)).version()}"


def _write(config: IngestConfig, report: QualityReport, before: QualityReport | None) -> list[str]:
    """The page, and the records that it shows; the URIs of these."""
    manifest = read_record(config.run_home / "manifest.json", IngestionManifest)
    quarantine = manifest.quarantine_uri
    html = page(
        report,
        _names(config, [report, before] if before else [report]),
        manifest=manifest,
        letters=[DeadLetter(**row) for row in read_jsonl(location(quarantine))] if quarantine else [],
        stages=read_stages(config),
        before=before,
        max_drop=config.max_drop,
    )
    write_bytes(config.run_home / "retrieval.html", html.encode())
    records = {"retrieval.json": report, "retrieval_live.json": before}
    there = {config.run_home / name: record for name, record in records.items() if record}
    for path, record in there.items():
        write_record(path, record)
    return [str(path) for path in there]


def _snapshot(config: IngestConfig) -> Snapshot:
    ledger = Ledger(config.home)
    return ledger.read(ledger.version())


def gate(quality_uri: str) -> str:
    """The verdict on an index; GateError with the reasons, and the questions that decided it, if it is refused."""
    report = read_record(location(quality_uri), QualityReport)
    decision = report.decision
    assert decision is not None
    reasons = "; ".join(decision.reasons)
    if decision.verdict == "refused":
        texts = {row.id: row.text for row in report.questions}
        worst = ", ".join(repr(texts[one]) for one in decision.deciding[:SHOWN])
        raise GateError(
            f"index {report.index!r} is refused: {reasons}. Worst questions: {worst}. Report: {quality_uri}"
        )
    log.log(logging.INFO if decision.verdict == "passed" else logging.WARNING, "%s: %s", decision.verdict, reasons)
    return decision.verdict


def check_golden(config: IngestConfig) -> None:
    """UserError if the user's questions cannot be read: before any work, not after it."""
    if config.golden:
        _questions(config, _golden_lines(config))


def _questions(config: IngestConfig, lines: list[str]) -> list[Question]:
    return read_questions(lines, lambda path: document_id(config.source, path))


def _golden_lines(config: IngestConfig) -> list[str]:
    """The lines of the user's file of questions; none if they are to be made."""
    if config.golden is None:
        return []
    try:
        return location(config.golden).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"golden={config.golden!r} cannot be read: {error}") from None


def _measured(config: IngestConfig, versions: list[int], lines: list[str], meter: Meter) -> list[QualityReport]:
    """A report of each version; what counts as an answer is looked for among all that they found."""
    snapshot, sampled = _snapshot(config), 0
    if config.golden:
        questions = _questions(config, lines)
    else:
        documents = list(_sample(config, snapshot))
        sampled = len(documents)
        questions = make_questions(documents, limit=QUESTIONS)
    answers = [_ask(config, number, questions, meter) for number in versions]
    for _, passages in answers:
        questions = _with_copies(config, snapshot, questions, passages)
    return [
        measure(
            questions,
            rankings,
            tenant=config.tenant,
            use_case=config.use_case,
            index=config.index,
            index_version=number,
            run_id=config.run_id,
            ledger_version=Ledger(config.versions.home_of(number)).version(),
            question_source=config.golden or "made",
            documents_sampled=sampled,
        )
        for number, (rankings, _) in zip(versions, answers, strict=True)
    ]


def _sample(config: IngestConfig, snapshot: Snapshot) -> Iterator[tuple[str, str, Document]]:
    """Some documents of this source, as _read() gives them."""
    mine = (entry for entry in snapshot.entries() if entry.source == config.source and entry.chunks)
    chosen: list[Entry] = heapq.nsmallest(SAMPLE, mine, key=lambda entry: digest("sample", entry.doc_id))
    return _read(config, chosen)


def _read(config: IngestConfig, entries: Iterable[Entry]) -> Iterator[tuple[str, str, Document]]:
    """(id, title, document) of those that are still what the index holds."""
    source = config.open_source()
    with Reader(config.limits) as reader:
        for entry in entries:
            try:
                data = source.read(entry.path)
                if content_digest(data) == entry.content_digest:
                    yield entry.doc_id, entry.title, reader.read(data, entry.path)
            except (OSError, DocumentError) as error:
                log.info("%s is not evaluated: %s", entry.path, error)


def _ask(
    config: IngestConfig, number: int, questions: list[Question], meter: Meter
) -> tuple[dict[str, dict[str, list[str]]], dict[str, list[tuple[str, str]]]]:
    """Each mode's documents for each question, best first; and all passages, as (document id, text)."""
    rankings: dict[str, dict[str, list[str]]] = {"full_text": {}, "dense": {}, "hybrid": {}}
    passages: dict[str, list[tuple[str, str]]] = {}
    if not questions:
        return rankings, passages
    embedder, store = open_version(config.versions, number)
    where = {"tenant": config.tenant}
    vectors = embed_metered(embedder, [question.text for question in questions], meter, query=True)
    started = time.monotonic()
    for question, vector in zip(questions, vectors, strict=True):
        sides = store.full_text(question.text, CANDIDATES, where), store.dense(vector, CANDIDATES, where)
        fused = fuse(*sides)
        passages[question.id] = [(passage.doc_id, passage.text) for passage in fused]
        for mode, side in zip(("full_text", "dense"), sides, strict=True):
            rankings[mode][question.id] = [str(hit.row["doc_id"]) for hit in side]
        rankings["hybrid"][question.id] = [passage.doc_id for passage in fused]
    log.info("asked v%d %d questions in %.1f s", number, len(questions), time.monotonic() - started)
    return rankings, passages


def _with_copies(
    config: IngestConfig, snapshot: Snapshot, questions: list[Question], passages: dict[str, list[tuple[str, str]]]
) -> list[Question]:
    """The questions, with documents outside of the sample that answer them as well.

    The index says where to look, and the source whether it is so: an index that mixed up its documents must not vouch
    for itself.
    """
    looked = pooled(questions, passages)
    more = {
        doc_id for before, after in zip(questions, looked, strict=True) for doc_id in after.relevant - before.relevant
    }
    entries = (entry for _, entry in sorted(snapshot.get_some(more).items()) if entry.source == config.source)
    texts = {doc_id: document.text for doc_id, _, document in _read(config, entries)}
    found = {
        after.id: [(doc_id, texts[doc_id]) for doc_id in after.relevant - before.relevant if doc_id in texts]
        for before, after in zip(questions, looked, strict=True)
    }
    return pooled(questions, found)


def _names(config: IngestConfig, reports: list[QualityReport]) -> dict[str, str]:
    """Paths of the documents that the reports speak of, as the ledgers of their versions have them."""
    names: dict[str, str] = {}
    for report in reports:
        ids = {doc_id for row in report.questions for doc_id in row.relevant}
        ids |= {doc_id for row in report.questions for found in row.found.values() for doc_id in found}
        names |= Ledger(config.versions.home_of(report.index_version)).paths(ids - names.keys())
    return names
