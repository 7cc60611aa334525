"""Makes a folder that plain transformers loads out of a training state and its corpus' tokenizer.

The trained weights carry transformers' names already, so they are copied one by one and nothing else of the state is;
what goes beside them is JSON. Needs safetensors and torch.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from include.jobs.checkpoints import write_json
from include.jobs.harness import BadInput

WEIGHTS = "model."
"""Before the names of weights in a state; the optimiser's moments have another prefix."""
END, PAD, USER, ASSISTANT = "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|user|>' + message['content'] + '<|end|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' + message['content'] + '<|end|>' }}"
    "{% else %}{{ raise_exception('roles are user and assistant, not ' + message['role']) }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
"""Turns as tokens of their own, each ended as documents are."""


def export(state: Path, corpus: Path, target: Path) -> None:
    """Fill the folder `target` from state.json and state.safetensors, and the corpus' manifest and tokenizer.json.

    model.safetensors is written last. BadInput if a state or tokenizer cannot be used, or the two do not fit together.
    """
    record = read_record(state)
    manifest = json.loads((corpus / "manifest.json").read_bytes())
    ids = _special_ids(corpus / "tokenizer.json")
    check_tokenizer(ids, manifest, record)
    target.mkdir(parents=True, exist_ok=True)
    config: dict[str, Any] = record["model_config"]
    write_json(target / "config.json", config)
    write_json(target / "generation_config.json", _generation_config(config, manifest))
    shutil.copyfile(corpus / "tokenizer.json", target / "tokenizer.json")
    names = {"bos_token": END, "eos_token": END, "pad_token": PAD}
    special = {**names, "additional_special_tokens": [name for name in ids if name not in (END, PAD)]}
    write_json(target / "special_tokens_map.json", special)
    write_json(target / "tokenizer_config.json", {**special, **_tokenizer_config(config)})
    _copy_weights(state / "state.safetensors", target / "model.safetensors")


def read_record(state: Path) -> dict[str, Any]:
    """state.json; BadInput if there is none, it is of another schema, or lacks what a model is rebuilt by."""
    file = state / "state.json"
    if not file.is_file():
        raise BadInput(f"channel model: {state} holds no state.json: it must be the output of a segment")
    record: dict[str, Any] = json.loads(file.read_bytes())
    if record.get("schema_version") != 1:
        raise BadInput(f"channel model: schema_version {record.get('schema_version')!r} of state.json is not 1")
    for name in ("architecture", "size", "vocab_size", "model_config", "step", "tokens", "curve"):
        if name not in record:
            raise BadInput(f"channel model: state.json has no {name!r}")
    if "model_type" not in record["model_config"]:
        raise BadInput("channel model: model_config in state.json names no model_type, such as llama or t5")
    return record


def check_tokenizer(ids: dict[str, int], manifest: dict[str, Any], record: dict[str, Any]) -> None:
    """BadInput unless corpus and model were made with one tokenizer, and its special tokens are where both say."""
    for name in ("vocab_size", "tokenizer_digest", "corpus_digest"):
        if name in record and record[name] != manifest[name]:
            raise BadInput(
                f"channel corpus: its {name} is {manifest[name]!r}, but the model was trained with {record[name]!r}"
            )
    first, count = manifest["sentinels"]
    wanted = {END: manifest["end_id"], PAD: manifest["pad_id"]}
    wanted |= {f"<extra_id_{number}>": first + number for number in range(count)}
    for name, number in wanted.items():
        if ids.get(name) != number:
            raise BadInput(f"channel corpus: {name} is {ids.get(name)} in tokenizer.json, {number} by manifest.json")
    if missing := {USER, ASSISTANT} - set(ids):
        raise BadInput(f"channel corpus: tokenizer.json has no special token {', '.join(sorted(missing))}")


def _special_ids(file: Path) -> dict[str, int]:
    if not file.is_file():
        raise BadInput(f"channel corpus: {file.parent} holds no tokenizer.json")
    added = json.loads(file.read_bytes()).get("added_tokens", ())
    return {one["content"]: one["id"] for one in added if one["special"]}


def _tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    found = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,  # what was encoded is what is decoded
        "padding_side": "right" if config.get("is_encoder_decoder", config["model_type"] == "t5") else "left",
        "chat_template": CHAT_TEMPLATE,
    }
    if length := config.get("max_position_embeddings"):
        found["model_max_length"] = length
    return found


def _generation_config(config: dict[str, Any], manifest: dict[str, Any]) -> dict[str, Any]:
    found = {"eos_token_id": manifest["end_id"], "pad_token_id": manifest["pad_id"]}
    start = "decoder_start_token_id"
    return {**found, start: config[start]} if start in config else {**found, "bos_token_id": manifest["end_id"]}


def _copy_weights(source: Path, target: Path) -> None:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    try:
        with safe_open(source, framework="pt") as tensors:
            names = [name for name in tensors.keys() if name.startswith(WEIGHTS)]
            weights = {name.removeprefix(WEIGHTS): tensors.get_tensor(name) for name in names}
    except (FileNotFoundError, SafetensorError) as error:
        raise BadInput(f"channel model: {source.name} cannot be read: {error}") from None
    if not weights:
        raise BadInput(f"channel model: {source.name} holds no weight, whose names begin with {WEIGHTS!r}")
    save_file(weights, target, metadata={"format": "pt"})
