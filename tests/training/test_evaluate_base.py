"""The evaluation of a pre-trained model: measured right, the same again, told on the way, and refused where it must."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.jobs.harness import PROGRESS
from include.training.held_out import windows
from tests.training.evaluated import documents, evaluation, found, world

both = pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])


@given(length=st.integers(0, 400), context=st.integers(2, 64))
def test_windows_make_each_token_new_once_with_half_a_context_before_it(length: int, context: int) -> None:
    new = np.zeros(length, int)
    for start, first, end in windows(length, context):
        assert 0 <= start <= first <= end <= length and end - start <= context
        assert start == 0 or first - start >= context // 2
        new[first:end] += 1
    assert (new == 1).all()


def test_batches_of_windows_cost_what_single_rows_do() -> None:
    scores = found()["scores"]
    assert scores["worst"] < 1e-4
    assert scores["told"] == 1 + 30 + 64 + (64 + 64) + (64 * 6 - 0), "windows overlap by half"


def test_spans_cost_what_was_trained_on() -> None:
    assert found()["spans"] < 1e-5


def test_a_decoder_is_measured_in_bits_per_byte_of_text() -> None:
    told, rows = evaluation("decoder-trained"), documents("decoder-trained")
    held_out, manifest = told["held_out"], json.loads((world() / "corpus-decoder" / "manifest.json").read_bytes())
    assert {name: held_out[name] for name in ("tokens", "documents", "bytes")} == manifest["held_out"]
    assert held_out["tokens"] == held_out["bytes"] + held_out["documents"], "end tokens cost, but are no text"
    bits = sum(row["model_bits"] for row in rows)
    assert held_out["bits_per_byte"] == pytest.approx(bits / held_out["bytes"])
    assert held_out["loss_nats_per_token"] == pytest.approx(bits * math.log(2) / held_out["tokens"])
    assert held_out["perplexity"] == pytest.approx(math.exp(held_out["loss_nats_per_token"]))
    assert set(held_out["by_source"]) == {"one", "two"}
    assert sum(one["bytes"] for one in held_out["by_source"].values()) == held_out["bytes"]
    ngram = sum(row["baseline_bits"] for row in rows) / held_out["bytes"]
    assert told["baselines"]["ngram"]["bits_per_byte"] == pytest.approx(ngram)
    assert [(row["source"], row["number"]) for row in rows] == [
        *(("one", number) for number in range(12)),
        *(("two", number) for number in range(8)),
    ]


def test_the_trained_decoder_beats_both_baselines_and_the_untrained_one_neither() -> None:
    for name, is_better in (("trained", True), ("untrained", False)):
        told = evaluation(f"decoder-{name}")
        model, baselines = told["held_out"]["bits_per_byte"], told["baselines"]
        assert (model < baselines["zlib"]["bits_per_byte"]) is is_better
        assert (model < baselines["ngram"]["bits_per_byte"]) is is_better
    whole, few = (evaluation(f"decoder-{name}") for name in ("trained", "untrained"))
    assert whole["baselines"]["ngram"]["tokens"] == 59_038, "the train split, which was seen more than once"
    assert few["baselines"]["ngram"]["tokens"] <= few["tokens_seen"] == 2048, "the n-gram model has seen no more"


def test_an_encoder_decoder_is_measured_on_what_was_left_out() -> None:
    told, rows = evaluation("encoder_decoder-trained"), documents("encoder_decoder-trained")
    tokens = sum(row["tokens"] for row in rows)
    assert told["held_out"]["tokens"] == tokens
    assert 0.12 < tokens / told["held_out"]["bytes"] < 0.18
    nats = sum(row["model_bits"] for row in rows) * math.log(2) / tokens
    assert told["span_denoising"]["loss_nats_per_token"] == pytest.approx(nats)
    assert "bits_per_byte" not in told["held_out"]
    unigram = sum(row["baseline_bits"] for row in rows) * math.log(2) / tokens
    assert told["baselines"]["unigram"]["loss_nats_per_token"] == pytest.approx(unigram)
    assert unigram == pytest.approx(math.log(26), abs=0.2), "letters are equally likely over all documents"


def test_the_trained_encoder_decoder_beats_the_unigram_and_the_untrained_one_does_not() -> None:
    for name, is_better in (("trained", True), ("untrained", False)):
        told = evaluation(f"encoder_decoder-{name}")
        baseline = told["baselines"]["unigram"]["loss_nats_per_token"]
        assert (told["span_denoising"]["loss_nats_per_token"] < baseline) is is_better


@both
def test_it_says_what_was_evaluated_and_shows_samples(architecture: str) -> None:
    told = evaluation(f"{architecture}-trained")
    state = json.loads((world() / f"{architecture}-trained" / "model" / "state" / "state.json").read_bytes())
    assert told["schema_version"] == 1 and told["architecture"] == architecture and told["size"] == "micro"
    assert (told["step"], told["tokens_seen"], told["curve"]) == (state["step"], state["tokens"], state["curve"])
    assert told["corpus_digest"] == "letters-0" and told["parameters"] > 100_000
    assert [one["kind"] for one in told["samples"]] == ["greedy"] * 3 + ["sampled"] * 3
    assert all(len(one["prompt"]) == 24 for one in told["samples"])


def test_a_sample_goes_on_as_its_prompt_began() -> None:
    for sample in evaluation("decoder-trained")["samples"][:3]:
        assert sample["continuation"][:24] == sample["prompt"], "24 letters are four rounds of six"


@both
def test_the_same_model_is_measured_the_same_again(architecture: str) -> None:
    assert found()[architecture]["is_same_again"]


@both
def test_no_more_tokens_are_read_than_told(architecture: str) -> None:
    bounded = found()[architecture]["bounded"]
    assert set(bounded["held_out"]["by_source"]) == {"one", "two"}, "each source has its share"
    assert 0 < bounded["held_out"]["bytes"] <= 1000 < evaluation(f"{architecture}-trained")["held_out"]["bytes"]


def test_progress_is_told() -> None:
    world()
    lines = [line for line in (world() / "output").read_text().splitlines() if line.startswith(PROGRESS)]
    phases = {json.loads(line.removeprefix(PROGRESS)).get("phase") for line in lines}
    assert {"held_out", "samples"} & phases


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("not final", "channel model: step 70 of 150: it is not the last segment's output"),
        ("no mark", "channel model: it holds no mark.json"),
        ("mark of another schema", "schema_version 2 of mark.json is not 1"),
        ("state of another schema", "schema_version 2 of state.json is not 1"),
        ("no state", "holds no state.json: it must be the output of a segment"),
        ("no configuration", "model_config in state.json names no model_type"),
        ("torn weights", "state.safetensors cannot be read"),
        ("no weights", "state.safetensors holds no weight"),
        ("a weight is missing", "missing_keys in state.safetensors: ['model.norm.weight']"),
        ("a weight is no number", "its loss on held-out documents is nan: the weights are broken"),
        ("another corpus", "its corpus_digest is 'letters-0', but the model was trained with 'other'"),
        ("another vocabulary", "its vocab_size is 360, but the model was trained with 99"),
        ("another digest", "its tokenizer_digest is 'other', but the model was trained with 'bytes'"),
        ("another tokenizer", "its held-out tokens are 6,153 bytes of text by tokenizer.json, not 2,051"),
        ("a special token elsewhere", "<|end|> is None in tokenizer.json, 0 by manifest.json"),
        ("no tokenizer", "holds no tokenizer.json"),
        ("no held-out", "no document was held out, so there is nothing to evaluate on"),
        ("too few tokens", "hyper-parameter max_held_out_tokens=10 must be at least 1000"),
        ("order", "hyper-parameter ngram_order=7 must be from 2 to 4"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_and_leaves_nothing_that_looks_whole(what: str, said: str) -> None:
    message, left = found()["refused"][what]
    assert said in message
    assert left == []
