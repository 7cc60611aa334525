"""Print what a pre-training run released, or why it released nothing, and what to do with it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from include.config import load_settings
from include.contracts import ModelRelease
from include.models.registry_mlflow import tracking_uri
from include.storage import location, read_json, read_record

WIDTH, HEIGHT = 60, 10
"""Characters of the plot, without its axes."""
_DOUBT, _MISSED = "but not surely", "is not below"
"""What the gate says of a baseline that is beaten, perhaps by chance, and of one that is not."""
_AGAIN = "goes on where it failed: what was done is found again"


def print_release(release_uri: str, alias: str, seconds: float, failures: Mapping[str, str]) -> None:
    """Print a release from its manifest, its evaluation and its corpus.

    `seconds` is what the whole run took; `failures` are the reasons of tasks that failed when it was there.
    """
    found = read_record(location(release_uri) / "manifest.json", ModelRelease)
    evaluation = read_json(location(release_uri) / "evaluation.json")
    corpus = location(found.lineage.data_uri)
    print(f"""
model {found.model}, version {found.version}, {alias}
{_documents(read_json(corpus / "report.json"))}
{_tokens(read_json(corpus / "manifest.json"))}
  training    {_training(evaluation)}
  time        {seconds:,.0f} s; its jobs, which train and evaluate, {_when(found.cost.instance_seconds, seconds)}
{_measured(evaluation)}
where
  release     {release_uri}
  card        {found.card_uri}
  curve       {release_uri}/curve.png
  model       {found.model_uri}
{_failed(failures)}next
{_mlflow()}  docs/pretraining.md   loads the model, and trains another: yours, or a larger one
  make up     opens the UI, with this run in it""")


def print_no_release(failures: Mapping[str, str], evaluation_uri: str | None) -> None:
    """Print which tasks failed, by their reasons, and what the model came to if it was evaluated."""
    told = _lines(failures)
    if evaluation_uri is not None:
        evaluation = read_json(location(evaluation_uri) / "evaluation.json")
        told += [f"model, not released\n  training    {_training(evaluation)}", _measured(evaluation)]
        told += [f"where\n  evaluation  {evaluation_uri}/evaluation.json"]
    print("\n".join(["\npretraining: nothing was released", *told, "next", *_remedies(failures.values())]))


def _lines(failures: Mapping[str, str]) -> list[str]:
    gap = f"\n{'':21}"
    return [f"  {task:<18} {reason.replace('; ', gap)}" for task, reason in failures.items()]


def _failed(failures: Mapping[str, str]) -> str:
    return "\n".join(["failed afterwards", *_lines(failures), ""]) if failures else ""


def plot(points: Sequence[tuple[float, float]], level: float | None = None) -> Iterator[str]:
    """Lines of text: `o` for each point (x, y), and a line at the level that is to be beaten."""
    heights = [y for _, y in points] + ([] if level is None else [level])
    low, high = min(heights), max(heights)
    first, last = points[0][0], points[-1][0]

    def row(y: float) -> int:
        return round((high - y) / ((high - low) or 1) * (HEIGHT - 1))

    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    if level is not None:
        cells[row(level)] = ["-"] * WIDTH
    for x, y in points:
        cells[row(y)][round((x - first) / ((last - first) or 1) * (WIDTH - 1))] = "o"
    for number, line in enumerate(cells):
        yield f"{high - (high - low) * number / (HEIGHT - 1):6.2f} |{''.join(line).rstrip()}"
    yield f"{'':6} +{'-' * WIDTH}"
    yield f"{'step':6}  {first:<{WIDTH // 2},.0f}{last:>{WIDTH // 2},.0f}"


def _documents(report: Mapping[str, Any]) -> str:
    """How many documents the corpus was made from, and why others are not in it."""
    sources = report["sources"].values()
    read, kept = (sum(one[name] for one in sources) for name in ("documents", "kept"))
    reasons: dict[str, int] = {}
    for one in sources:
        for reason, count in one["dropped"].items():
            reasons[reason] = reasons.get(reason, 0) + count
    most_first = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    dropped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in most_first)
    return f"  documents   {read:,} read, {kept:,} kept" + (f"; left out: {dropped}" if dropped else "")


def _tokens(corpus: Mapping[str, Any]) -> str:
    train, held_out = corpus["train"], corpus["held_out"]
    return (
        f"  tokens      {train['tokens']:,} to train on, {held_out['tokens']:,} held out in "
        f"{held_out['documents']:,} documents"
    )


def _training(evaluation: Mapping[str, Any]) -> str:
    kind = evaluation["architecture"].replace("_", "-")
    return (
        f"{evaluation['step']:,} steps, {evaluation['tokens_seen']:,} tokens; {kind} of size {evaluation['size']}, "
        f"{evaluation['parameters']:,} weights"
    )


def _when(jobs_s: float, run_s: float) -> str:
    """What the jobs took; a run takes less than its jobs where it found their output."""
    return f"{jobs_s:,.0f} s" + (" when they ran" if jobs_s > run_s else "")


def _measured(evaluation: Mapping[str, Any]) -> str:
    """The curve of the held-out loss, and the model beside what it has to beat."""
    lines = [*_curve(evaluation), "quality"]
    baselines = evaluation["baselines"]
    if evaluation["architecture"] == "decoder":
        unit, cost = "bits per byte", evaluation["held_out"]["bits_per_byte"]
        rivals = {f"{baselines['ngram']['order']}-gram": baselines["ngram"], "zlib": baselines["zlib"]}
        others = {name: one["bits_per_byte"] for name, one in rivals.items()}
    else:
        unit, cost = "nats per left-out token", evaluation["span_denoising"]["loss_nats_per_token"]
        others = {"unigram": baselines["unigram"]["loss_nats_per_token"]}
    lines.append(f"  model       {cost:.3f} {unit}, on {evaluation['held_out']['documents']:,} held-out documents")
    for name, other in others.items():
        share = 100 * (1 - cost / other)
        lines.append(f"  {name:<11} {other:.3f}: the model is {abs(share):.1f} % {'below' if share > 0 else 'above'}")
    return "\n".join(lines)


def _curve(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """The held-out loss by step. Of a decoder beside the n-gram model; an encoder-decoder's counts sentinels as well,
    which its baseline's does not."""
    yield "curve"
    scale, level, unit = 1.0, None, "held out, nats per token with sentinels"
    if evaluation["architecture"] == "decoder":
        held_out, ngram = evaluation["held_out"], evaluation["baselines"]["ngram"]
        scale, level = held_out["tokens"] / held_out["bytes"] / math.log(2), ngram["bits_per_byte"]
        unit = f"held out, bits per byte; the line is the {ngram['order']}-gram model's"
    looks = ((float(point["step"]), point.get("held_out_loss")) for point in evaluation["curve"])
    points = [(step, loss * scale) for step, loss in looks if loss is not None and math.isfinite(loss)]
    if points:
        yield f"  {unit}"
        yield from (f"  {line}" for line in plot(points, level))
    else:
        yield "  no point of it was kept"


def _mlflow() -> str:
    """The line that names MLflow, where there is one."""
    return "" if tracking_uri(load_settings()) is None else "  make ui-mlflow   shows the release beside others\n"


def _remedies(reasons: Iterable[str]) -> list[str]:
    """What to do about the reasons."""
    told = " ".join(reasons)
    lines = []
    if _DOUBT in told and _MISSED not in told:
        lines.append('  "accept_doubt": true   in CONF releases a model that is better, but not surely')
    if "GateError" in told:
        lines.append("  docs/pretraining.md   what the gate asks, and the Params of a longer or larger training")
    else:
        lines.append(f"  make dag DAG=pretraining   {_AGAIN}")
    return [*lines, "  make up     opens the UI, with this run in it"]
