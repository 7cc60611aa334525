"""The release's folder: plain transformers loads it, and it is the model that was trained with its tokenizer."""

from __future__ import annotations

import json

import pytest

from include.training.export import ASSISTANT, CHAT_TEMPLATE, END, USER
from tests.training.evaluated import found, world

both = pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])


@both
def test_the_exported_model_computes_what_the_trained_one_does(architecture: str) -> None:
    assert found()[architecture]["export"]["difference"] < 1e-4


@both
def test_its_tokenizer_is_the_corpus_own(architecture: str) -> None:
    export = found()[architecture]["export"]
    assert export["as_encoded"] and export["as_decoded"]
    assert export["special_ids"] == [0, 1, 104] and export["generation"] == [0, 1]
    exported = world() / f"{architecture}-trained" / "evaluation" / "model" / "tokenizer.json"
    assert exported.read_bytes() == (world() / f"corpus-{architecture}" / "tokenizer.json").read_bytes()


@both
def test_it_holds_what_transformers_looks_for_and_nothing_else(architecture: str) -> None:
    assert found()[architecture]["export"]["files"] == [
        "config.json", "generation_config.json", "model.safetensors", "special_tokens_map.json",
        "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    from safetensors import safe_open

    place = world() / f"{architecture}-trained"
    with safe_open(place / "evaluation" / "model" / "model.safetensors", framework="numpy") as weights:
        names = set(weights.keys())
    with safe_open(place / "model" / "state" / "state.safetensors", framework="numpy") as state:
        of_state = set(state.keys())
    assert {f"model.{name}" for name in names} == {name for name in of_state if name.startswith("model.")}
    assert len(of_state) > len(names), "the optimiser's moments are not exported"
    config = json.loads((place / "evaluation" / "model" / "tokenizer_config.json").read_bytes())
    assert (config["eos_token"], config["chat_template"]) == (END, CHAT_TEMPLATE)


@both
def test_its_chat_template_marks_turns_by_the_special_tokens(architecture: str) -> None:
    export = found()[architecture]["export"]
    assert export["chat"] == f"{USER}hi{END}{ASSISTANT}ho{END}"
    user, *_, end, assistant = export["asked"]
    assert (user, end, assistant) == (2, 0, 3)
    assert export["of_a_system"] == "roles are user and assistant, not system"
