"""The model card: what a released model is made of, what it can do, and what not; in Markdown.

What others wrote (samples, sources, licences, run ids) stands in code fences and code spans alone, so it is shown and
never read as Markdown or HTML; what cannot be printed is shown by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from include.contracts import ModelRelease
from include.training.corpus_manifest import CorpusManifest
from include.training.gate import Decision

CURVE = "curve.png"
MAX_REPORT_LINES, MAX_LINE, MAX_SAMPLE = 80, 160, 1000
_KINDS = {"decoder": "decoder-only (Llama-style)", "encoder_decoder": "encoder-decoder (T5-style)"}
_LOAD = {
    "decoder": """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("model")
model = AutoModelForCausalLM.from_pretrained("model")
inputs = tokenizer("A task is", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))""",
    "encoder_decoder": """\
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("model")
model = AutoModelForSeq2SeqLM.from_pretrained("model")
inputs = tokenizer("A task is <extra_id_0> by a worker", return_tensors="pt", return_token_type_ids=False)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))""",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What a card tells."""

    release: ModelRelease
    """Its files are those of the model; the card itself is not among them."""
    evaluation: Mapping[str, Any]
    decision: Decision
    corpus: CorpusManifest
    report: Mapping[str, Any]
    """The corpus' report.json."""
    flops: float
    """Of the whole training."""
    hardware: str


def write(facts: Facts) -> str:
    """The card; the same facts give the same text."""
    parts = (_head, _use, _data, _training, _results, _limits, _origin)
    return "\n\n".join(section for part in parts for section in part(facts)) + "\n"


def fence(text: str, language: str = "") -> str:
    """A block of code that holds any text: its fence is longer than any run of backticks within."""
    shown = "\n".join(printable(line) for line in text.splitlines())
    ticks = "`" * max(3, 1 + _longest_run(shown))
    return f"{ticks}{language}\n{shown}\n{ticks}"


def span(text: str) -> str:
    """Any text as a code span on one line, also within a table."""
    shown = printable(" ".join(text.split())).replace("|", "\\u007c") or " "
    ticks = "`" * (1 + _longest_run(shown))
    pad = " " if shown[0] == "`" or shown[-1] == "`" else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def printable(text: str) -> str:
    """The text with what cannot be printed, such as marks that turn the direction of writing, by its number."""
    return "".join(one if one.isprintable() else f"\\u{ord(one):04x}" for one in text)


def _head(facts: Facts) -> Iterator[str]:
    release, evaluation = facts.release, facts.evaluation
    yield f"# {release.model}, version {release.version}"
    start = f"made from {span(release.base_model)}" if release.base_model else "pre-trained from scratch"
    yield (
        f"A language model, {_KINDS[release.architecture]}, with {release.parameters:,} weights (size "
        f"{span(release.size)}), {start} on {evaluation['tokens_seen']:,} tokens. Released on "
        f"{release.created_at:%Y-%m-%d}, tenant {span(release.tenant)}, use case {span(release.use_case)}."
    )
    yield f"![Training curve: loss by step]({CURVE})"


def _use(facts: Facts) -> Iterator[str]:
    yield "## How to load it"
    yield "In this folder, with plain `transformers`; the weights are safetensors, and no code comes with them:"
    yield fence(_LOAD[facts.release.architecture], "python")


def _data(facts: Facts) -> Iterator[str]:
    corpus = facts.corpus
    yield "## Data"
    yield _table(
        ("split", "documents", "tokens", "bytes of text"),
        [
            (name, f"{one.documents:,}", f"{one.tokens:,}", f"{one.bytes:,}")
            for name, one in (("train", corpus.train), ("held out", corpus.held_out))
        ],
    )
    for name in ("sources", "licences"):
        counted: dict[str, int] = {}
        for file in corpus.files:
            for key, tokens in getattr(file, name).items():
                counted[key] = counted.get(key, 0) + tokens
        yield f"Tokens by {'source' if name == 'sources' else 'licence'}, both splits:"
        yield fence("\n".join(f"{tokens:>14,}  {_cut(key)}" for key, tokens in sorted(counted.items())) or "none")
    yield "What each step kept and dropped, near-duplicates and decontamination included (samples: the corpus' report):"
    yield fence("\n".join(_report_lines(facts.report)) or "nothing was told")
    yield (
        "The licences are those that the sources name. Whoever passes the model on has to keep to them; this card "
        "grants none."
    )


def _training(facts: Facts) -> Iterator[str]:
    release, evaluation = facts.release, facts.evaluation
    cost, seen = release.cost, evaluation["tokens_seen"]
    seconds = cost.instance_seconds
    took = f"{seconds / 3600:,.2f} h" if seconds >= 3600 else f"{seconds / 60:,.1f} min"
    yield "## Training"
    yield _table(
        ("what", "value"),
        [
            ("architecture, size", f"{_KINDS[release.architecture]}, {span(release.size)}"),
            ("weights", f"{release.parameters:,}"),
            ("steps", f"{evaluation['step']:,}"),
            ("tokens seen", f"{seen:,} ({seen / max(1, facts.corpus.train.tokens):.2f} times the train split)"),
            ("vocabulary", f"{facts.corpus.vocab_size:,} tokens, byte-level BPE"),
            ("FLOPs", f"{facts.flops:.3g}"),
            ("machine time, evaluation included", took),
            ("hardware", span(facts.hardware)),
            ("cost", "no price is known" if cost.usd is None else f"{cost.usd:,.2f} USD"),
        ],
    )
    yield "What training was told:"
    yield fence("\n".join(f"{name} = {value!r}" for name, value in sorted(release.config.items())) or "nothing")


def _results(facts: Facts) -> Iterator[str]:
    evaluation, held_out = facts.evaluation, facts.evaluation["held_out"]
    yield "## Results"
    yield f"On {held_out['documents']:,} held-out documents, {held_out['tokens']:,} tokens:"
    yield _table(
        ("against", "unit", "model", "baseline", "difference", "95 % interval"),
        [
            (one.baseline, one.unit, f"{one.model:.4f}", f"{one.other:.4f}", f"{one.difference:+.4f}", _interval(one))
            for one in facts.decision.findings
        ],
    )
    margins = ", ".join(f"{one.margin:.0%} of {one.baseline}" for one in facts.decision.findings if one.margin)
    yield (
        f"The gate: {facts.decision.verdict.replace('_', ' ')}, by {facts.decision.num_documents:,} documents. A "
        "difference is the model's figure less the baseline's, below 0 where the model is better; the interval is a "
        "bootstrap over documents." + (f" Margins that were asked for are in it: {margins}." if margins else "")
    )
    yield "By source:"
    names = [name for name in ("tokens", "bits_per_byte", "loss_nats_per_token", "perplexity") if name in held_out]
    rows = [("all", held_out), *((span(name), one) for name, one in sorted(held_out["by_source"].items()))]
    yield _table(("source", *names), [(name, *(_number(one[key]) for key in names)) for name, one in rows])
    task = evaluation["zero_shot"]
    yield (
        f"Zero-shot, {span(str(task['task']))}: no question could be made."
        if task["accuracy"] is None
        else f"Zero-shot, {span(str(task['task']))}: {task['accuracy']:.1%} of {task['items']:,} (95 % interval "
        f"{task['low']:.1%} to {task['high']:.1%}, chance {task['chance']:.1%})."
    )
    yield "What it writes; the prompts are beginnings of held-out documents, nothing was chosen:"
    for sample in evaluation["samples"]:
        kind = f"{sample['kind']}\n" if "kind" in sample else ""
        prompt, continuation = (sample[name][:MAX_SAMPLE] for name in ("prompt", "continuation"))
        yield fence(f"{kind}prompt: {prompt}\nmodel:  {continuation}")


def _limits(facts: Facts) -> Iterator[str]:
    yield "## Limits"
    yield "\n".join(
        (
            f"- It has {facts.release.parameters:,} weights and read {facts.evaluation['tokens_seen']:,} tokens: it "
            "knows the wording of its sources, and states things that are not so.",
            "- It reads and writes the language of its sources alone; of the demo's corpus that is English technical "
            "documentation.",
            "- It is a base model: not tuned to follow instructions, not aligned, not tested for harm or bias. It goes "
            "on with whatever text it is given. The chat template is there for fine-tuning.",
            "- It may repeat its sources word for word, personal data in them included.",
            "- Held-out documents come from the same sources: figures on other text will be worse.",
        )
    )


def _origin(facts: Facts) -> Iterator[str]:
    lineage = facts.release.lineage
    yield "## Where it comes from"
    values = {**lineage.model_dump(exclude={"jobs"}), "jobs": " ".join(lineage.jobs)}
    values["base_model"] = facts.release.base_model or "none"
    yield fence("\n".join(f"{name:<16} {value}" for name, value in sorted(values.items())))
    yield "SHA-256 of the model's files; `manifest.json` has those of all others:"
    yield fence("\n".join(f"{file.sha256}  {file.path}" for file in facts.release.files))


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that hold no text of others, unless as a span()."""
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(finding: Any) -> str:
    return "not known" if finding.low is None else f"{finding.low:+.4f} to {finding.high:+.4f}"


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.3f}"


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    """The report as indented lines; samples and what stands in tables already are left out."""
    told = {name: value for name, value in report.items() if name not in ("schema_version", "packing")}
    lines = [_cut(line) for line in _lines(told, "")]
    left = len(lines) - MAX_REPORT_LINES
    return [*lines[:MAX_REPORT_LINES], *([f"... {left} more lines in the corpus' report.json"] if left > 0 else [])]


def _lines(value: Any, indent: str) -> Iterator[str]:
    named = value.items() if isinstance(value, Mapping) else (("-", one) for one in value)
    for name, one in named:
        if name == "samples":
            continue
        if not isinstance(one, Mapping | list | tuple):
            yield f"{indent}{name}{'' if name == '-' else ':'} {_plain(one)}"
            continue
        inner, title = one, name
        if name == "-" and isinstance(one, Mapping) and "name" in one:
            inner, title = {key: item for key, item in one.items() if key != "name"}, f"- {one['name']}"
        yield f"{indent}{title}:"
        yield from _lines(inner, f"{indent}  ")


def _plain(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _cut(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= MAX_LINE else f"{shown[:MAX_LINE]}..."


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
