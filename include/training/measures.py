"""What is measured of a pre-trained model on held-out documents, and of the baselines on the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from include.jobs.harness import BadInput, Job
from include.training import zero_shot as task
from include.training.baselines import Ids, NGram, sample, zlib_bits
from include.training.held_out import Document, computed_tokens, leave_out, span_nats, token_nats
from include.training.loader import Corpus

if TYPE_CHECKING:
    import torch

MAX_NGRAM_TOKENS = 2**23
"""That the n-gram model counts, in about 1 GB of memory."""
NUM_SAMPLES, SAMPLE_PROMPT_TOKENS, SAMPLE_TOKENS = 3, 24, 48
TEMPERATURE = 0.8
LN2 = math.log(2)

Row = dict[str, Any]
"""Of one document: source, number, bytes, tokens, model_bits, baseline_bits (of the n-gram model, or the unigram)."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is evaluated, and on what."""

    job: Job
    model: Any
    tokenizer: Any
    """Of `tokenizers`."""
    corpus: Corpus
    documents: Sequence[Document]
    record: Mapping[str, Any]
    """The state's."""
    context: int
    seed: int
    device: torch.device

    @property
    def is_decoder(self) -> bool:
        """Whether the architecture is the decoder-only one."""
        return bool(self.record["architecture"] == "decoder")


class Meter:
    """Tells a job's progress in tokens that were computed."""

    def __init__(self, job: Job, total: int) -> None:
        self._job, self._total, self._done = job, total, 0
        self.phase = "held_out"

    def __call__(self, tokens: int) -> None:
        """So many more are done."""
        self._done += tokens
        self._job.progress(step=min(self._done, self._total), of=self._total, phase=self.phase)


def num_computed(scene: Scene) -> int:
    """Tokens that will be computed, about."""
    held_out = computed_tokens(scene.documents, scene.context)
    item = task.NUM_CHOICES * (task.PROMPT_TOKENS + 2 * task.CHOICE_TOKENS)
    return held_out + task.MAX_ITEMS * item


def decoder(scene: Scene, meter: Meter) -> tuple[dict[str, Any], list[Row]]:
    """Cost of every token, and what an n-gram model and a compressor make of the same documents."""
    corpus, documents, order = scene.corpus, scene.documents, scene.job.parameter("ngram_order", 3)
    if not 2 <= order <= 4:
        raise BadInput(f"hyper-parameter ngram_order={order} must be from 2 to 4")
    ngram = NGram(_counted(scene), corpus.vocab_size, corpus.end_id, order)
    tokens = [one.tokens for one in documents]
    nats = token_nats(scene.model, tokens, corpus.end_id, scene.context, scene.device, meter)
    rows: list[Row] = [
        {
            **_about(one),
            "tokens": len(one.tokens),
            "model_bits": float(cost.sum() / LN2),
            "baseline_bits": float(ngram.bits(one.tokens).sum()),
        }
        for one, cost in zip(documents, nats, strict=True)
    ]
    num_bytes = sum(row["bytes"] for row in rows)
    by_ngram = sum(row["baseline_bits"] for row in rows) / num_bytes
    baselines = {
        "ngram": {"order": order, "tokens": ngram.num_tokens, "bits_per_byte": by_ngram},
        "zlib": {"bits_per_byte": _compressed_bits(documents) / num_bytes},
    }
    held_out = _by_source(rows)
    for sums in (held_out, *held_out["by_source"].values()):
        sums["bits_per_byte"] = sums["loss_nats_per_token"] * sums["tokens"] / LN2 / sums["bytes"]
    return {"held_out": held_out, "baselines": baselines}, rows


def _counted(scene: Scene) -> list[Ids]:
    """What n-gram models count: the train split, or as many tokens of it as the model has seen."""
    max_tokens = min(scene.job.parameter("max_ngram_tokens", MAX_NGRAM_TOKENS), scene.record["tokens"])
    return sample(scene.corpus.train, max_tokens, scene.corpus.end_id)


def _about(document: Document) -> Row:
    return {"source": document.source, "number": document.number, "bytes": document.num_bytes}


def _compressed_bits(documents: Sequence[Document]) -> int:
    """Of each source's documents in one."""
    texts: dict[str, list[str]] = {}
    for one in documents:
        texts.setdefault(one.source, []).append(one.text)
    return sum(zlib_bits("\n".join(found).encode()) for found in texts.values())


def encoder_decoder(scene: Scene, meter: Meter) -> tuple[dict[str, Any], list[Row]]:
    """Cost of the tokens that were left out, and what the unigram of the train split makes of the same.

    Sentinels and end tokens stand where they must, so nothing is learnt of a model by them: they are not counted.
    """
    corpus, documents = scene.corpus, scene.documents
    pieces = leave_out(documents, corpus, scene.context, scene.seed)
    nats = span_nats(scene.model, pieces, corpus.pad_id, scene.device, meter)
    is_text = [(one.targets < corpus.first_sentinel) & (one.targets != corpus.end_id) for one in pieces]
    targets = [one.targets[text] for one, text in zip(pieces, is_text, strict=True)]
    words = [stream[stream != corpus.end_id] for stream in _counted(scene)]
    unigram = NGram(words, corpus.vocab_size, corpus.end_id, order=1)
    rows: list[Row] = [{**_about(one), "tokens": 0, "model_bits": 0.0, "baseline_bits": 0.0} for one in documents]
    for piece, cost, text, left_out in zip(pieces, nats, is_text, targets, strict=True):
        row = rows[piece.document]
        row["tokens"] += int(text.sum())
        row["model_bits"] += float(cost[text].sum() / LN2)
        row["baseline_bits"] += float(unigram.bits(left_out).sum())
    rows = [row for row in rows if row["tokens"]]
    held_out = _by_source(rows)
    of_all = float(np.concatenate(nats).mean())
    by_unigram = sum(row["baseline_bits"] for row in rows) * LN2 / held_out["tokens"]
    return {
        "held_out": held_out,
        "span_denoising": {"loss_nats_per_token": held_out["loss_nats_per_token"], "loss_with_sentinels": of_all},
        "baselines": {"unigram": {"loss_nats_per_token": by_unigram}},
    }, rows


def _by_source(rows: Sequence[Row]) -> dict[str, Any]:
    """Sums, loss and perplexity of all documents, and of each source's."""
    sources = sorted({row["source"] for row in rows})
    of_each = {source: _summed([row for row in rows if row["source"] == source]) for source in sources}
    return {**_summed(rows), "by_source": of_each}


def _summed(rows: Sequence[Row]) -> dict[str, Any]:
    sums: dict[str, Any] = {name: sum(row[name] for row in rows) for name in ("tokens", "bytes")}
    loss = sum(row["model_bits"] for row in rows) * LN2 / sums["tokens"]
    if not math.isfinite(loss):
        raise BadInput(f"channel model: its loss on held-out documents is {loss}: the weights are broken")
    return {"documents": len(rows), **sums, "loss_nats_per_token": loss, "perplexity": math.exp(min(loss, 700))}


def zero_shot(scene: Scene, meter: Meter) -> dict[str, Any]:
    """How many of the task's questions the model answers (see include/training/zero_shot.py)."""
    corpus, meter.phase = scene.corpus, "zero_shot"

    def score(prompts: Any, choices: Any) -> Any:
        if scene.is_decoder:
            found = task.decoder_score(scene.model, prompts, choices, scene.device)
        else:
            special = (corpus.first_sentinel, corpus.end_id, corpus.pad_id)
            found = task.encoder_decoder_score(scene.model, prompts, choices, scene.device, *special)
        meter(choices.size + choices[..., 0].size * prompts.shape[1])
        return found

    items = task.make_items(scene.documents, corpus.end_id, scene.seed)
    return task.summary(items, task.answers(items, score, np.array([corpus.end_id])))


def samples(scene: Scene, meter: Meter) -> list[dict[str, str]]:
    """How the model goes on from the beginnings of held-out documents: by what is likeliest, and drawn by the seed."""
    meter.phase = "samples"
    meter(0)
    size = min(SAMPLE_PROMPT_TOKENS, scene.context // 2)
    long = [one.tokens[:size].tolist() for one in scene.documents if len(one.tokens) > size]
    prompts = [long[place * len(long) // NUM_SAMPLES] for place in range(min(NUM_SAMPLES, len(long)))]
    drawn = {"do_sample": True, "temperature": TEMPERATURE}
    return [
        {"kind": kind, "prompt": _text(scene, prompt), "continuation": _text(scene, continuation)}
        for kind, options in (("greedy", {"do_sample": False}), ("sampled", drawn))
        for prompt, continuation in zip(prompts, _continued(scene, prompts, options), strict=True)
    ]


def _continued(scene: Scene, prompts: Sequence[list[int]], options: Mapping[str, Any]) -> list[list[int]]:
    """What the model writes after prompts of one length; an encoder-decoder fills in what a sentinel stands for."""
    import torch

    if not prompts:
        return []
    end_id, before = scene.corpus.end_id, len(prompts[0]) + 1
    if scene.is_decoder:
        rows = [[end_id, *prompt] for prompt in prompts]
    else:
        rows, before = [[*prompt, scene.corpus.first_sentinel, end_id] for prompt in prompts], 0
    inputs = torch.tensor(rows, device=scene.device)
    room = min(SAMPLE_TOKENS, scene.context - len(rows[0]))
    torch.manual_seed(scene.seed)
    with torch.inference_mode():
        made = scene.model.generate(inputs, attention_mask=torch.ones_like(inputs), max_new_tokens=room, **options)
    return [row[before:] for row in made.tolist()]


def _text(scene: Scene, tokens: list[int]) -> str:
    return str(scene.tokenizer.decode(tokens, skip_special_tokens=True))
