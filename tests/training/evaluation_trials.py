"""What tests do with the evaluation in the jobs environment: small models, trained and not, of both architectures.

`python -m tests.training.evaluation_trials FOLDER` fills a folder: `corpus-<architecture>`; `<architecture>-<trained or
untrained>` with `model`, the output of pre-training, and `evaluation`, that of the evaluation; `found.json`, what else
was tried.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from include.jobs import harness
from include.jobs.checkpoints import write_json
from include.jobs.harness import BadInput
from include.training import evaluate_base, held_out, presets
from include.training.export import ASSISTANT, END, PAD, USER
from include.training.loader import Corpus, Pieces, open_corpus
from include.training.model import build_model

LETTERS = {"decoder": 6, "encoder_decoder": 2}
"""Of a document's own, which it repeats."""
TRAINED = {"decoder": (150, 1e-2), "encoder_decoder": (120, 3e-3)}
"""Steps and learning rate: a few seconds."""
UNTRAINED = (1, 1e-9)
presets.PRESETS["micro"] = dataclasses.replace(
    presets.PRESETS["tiny"], name="micro", layers=2, width=64, kv_heads=1, context=64, learning_rate=1e-2
)  # fmt: skip
SPECIAL = (END, PAD, USER, ASSISTANT)
SENTINELS = 100


def make_tokenizer(file: Path) -> Tokenizer:
    """A token for each byte, and the special ones."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: len(SPECIAL) + n for n, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    text = json.loads(tokenizer.to_str())
    names = [*SPECIAL, *(f"<extra_id_{number}>" for number in range(SENTINELS))]
    places = [*range(len(SPECIAL)), *range(len(SPECIAL) + 256, len(SPECIAL) + 256 + SENTINELS)]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    text["added_tokens"] = [{"id": n, "content": name, **flags} for n, name in zip(places, names, strict=True)]
    text["model"]["vocab"] |= dict(zip(names, places, strict=True))
    file.write_text(json.dumps(text))
    return Tokenizer.from_file(str(file))


def write_corpus(folder: Path, letters: int, seed: int = 0) -> Path:
    """Documents that repeat a few letters each: no n-gram knows what comes next, who looks further back does."""
    folder.mkdir(parents=True)
    tokenizer = make_tokenizer(folder / "tokenizer.json")
    rng = np.random.default_rng(seed)
    files = []
    for name, split, source, count in (
        ("train-00000.bin", "train", None, 600),
        ("held_out-one.bin", "held_out", "one", 12),
        ("held_out-two.bin", "held_out", "two", 8),
    ):
        texts = [
            "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), letters)) * (150 // letters) for _ in range(count)
        ]
        texts = [text[: rng.integers(70, 130)] for text in texts]
        tokens = np.concatenate([[*one.ids, 0] for one in tokenizer.encode_batch(texts)]).astype("<u2")
        tokens.tofile(folder / name)
        sizes = {"tokens": len(tokens), "documents": count, "bytes": len("".join(texts).encode())}
        files.append({"path": name, "split": split, "source": source, **sizes})
    manifest = {
        "schema_version": 1,
        "corpus_digest": f"letters-{seed}",
        "tokenizer_digest": "bytes",
        "vocab_size": tokenizer.get_vocab_size(),
        "end_id": 0,
        "pad_id": 1,
        "sentinels": [len(SPECIAL) + 256, SENTINELS],
        "dtype": "uint16",
        "files": files,
        **{split: _sums(files, split) for split in ("train", "held_out")},
    }
    write_json(folder / "manifest.json", manifest)
    return folder


def _sums(files: list[dict[str, Any]], split: str) -> dict[str, int]:
    mine = [file for file in files if file["split"] == split]
    return {name: sum(file[name] for file in mine) for name in ("tokens", "documents", "bytes")}


def environment(folder: Path, script: str, channels: dict[str, Path], **parameters: Any) -> dict[str, str]:
    """Of a job in a folder of its own."""
    given = {"fmops_script": f"include.training.{script}", "threads": 1, **parameters}
    return {
        "FMOPS_ML_ROOT": str(folder / script),
        "SM_MODEL_DIR": str(folder / ("model" if script == "pretrain" else "evaluation")),
        harness.HYPERPARAMETERS: json.dumps(given),
        **{f"SM_CHANNEL_{name.upper()}": str(path) for name, path in channels.items()},
    }


def pretrained(folder: Path, corpus: Path, architecture: str, *, steps: int, learning_rate: float) -> Path:
    """Train a small model; the output's folder."""
    given = {"size": "micro", "architecture": architecture, "steps": steps, "learning_rate": learning_rate}
    batch = {"batch_tokens": 2048, "micro_batch_tokens": 2048, "precision": "fp32", "processes": 1}
    harness.run(environment(folder, "pretrain", {"corpus": corpus}, **given, **batch))
    return folder / "model"


def evaluated(folder: Path, model: Path, corpus: Path, **parameters: Any) -> dict[str, Any]:
    """What the evaluation wrote."""
    harness.run(environment(folder, "evaluate_base", {"model": model, "corpus": corpus}, **parameters))
    found: dict[str, Any] = json.loads((folder / "evaluation" / evaluate_base.EVALUATION).read_bytes())
    return found


def compare_export(folder: Path, architecture: str, corpus: Path) -> dict[str, Any]:
    """The exported folder, loaded by plain transformers, against the model that was trained and its tokenizer."""
    from transformers import AutoTokenizer

    exported = folder / "evaluation" / "model"
    loaded = evaluate_base.load(exported, architecture)
    trained = build_model(presets.PRESETS["micro"], architecture, loaded.config.vocab_size, seed=1)
    weights = load_file(folder / "model" / "state" / "state.safetensors")
    trained.load_state_dict({name: weights[f"model.{name}"] for name, _ in trained.named_parameters()})
    tokens = torch.randint(4, 260, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        if architecture == "decoder":
            own, theirs = trained.logits(tokens, torch.arange(40).expand(2, 40)), loaded(input_ids=tokens).logits
        else:
            own = trained.logits(tokens, torch.ones_like(tokens, dtype=torch.bool), tokens[:, :9])
            theirs = loaded(input_ids=tokens, decoder_input_ids=tokens[:, :9]).logits
    tokenizer, raw = AutoTokenizer.from_pretrained(exported), Tokenizer.from_file(str(corpus / "tokenizer.json"))
    text, turns = (
        "a  b\tc . d<|end|>\u00e9\n",
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}],
    )
    try:
        tokenizer.apply_chat_template([{"role": "system", "content": "x"}], tokenize=False)
        said = ""
    except Exception as error:
        said = str(error)
    return {
        "difference": float((own - theirs).abs().max()),
        "as_encoded": tokenizer(text).input_ids == raw.encode(text).ids,
        "as_decoded": tokenizer.decode(tokenizer(text).input_ids) == text,
        "special_ids": [tokenizer.eos_token_id, tokenizer.pad_token_id, len(tokenizer.all_special_ids)],
        "chat": tokenizer.apply_chat_template(turns, tokenize=False),
        "asked": tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True)["input_ids"],
        "of_a_system": said,
        "generation": [loaded.generation_config.eos_token_id, loaded.generation_config.pad_token_id],
        "files": sorted(path.name for path in exported.iterdir()),
    }


def compare_scores(folder: Path) -> dict[str, float]:
    """Batches with windows and padding against one row at a time."""
    rng, told = np.random.default_rng(0), []
    cpu = torch.device("cpu")
    model = evaluate_base.load(folder / "decoder-trained" / "evaluation" / "model", "decoder")
    documents = [rng.integers(4, 260, length) for length in (1, 30, 64, 65, 200)]
    found = held_out.token_nats(model, documents, 0, 64, cpu, told.append)
    worst = 0.0
    for document, nats in zip(documents, found, strict=True):
        whole = np.concatenate(([0], document))
        for start, first, end in held_out.windows(len(document), 64):
            with torch.inference_mode():
                logits = model(input_ids=torch.from_numpy(whole[start:end])[None]).logits[0]
            alone = -torch.log_softmax(logits, -1)[torch.arange(end - start), torch.from_numpy(document[start:end])]
            worst = max(worst, float(np.abs(alone.numpy()[first - start :] - nats[first:end]).max()))
    return {"worst": worst, "told": sum(told)}


def compare_spans(folder: Path, corpus: Corpus) -> float:
    """The mean over target tokens against the loss that was trained on, of pieces of unlike lengths."""
    presets_model = build_model(presets.PRESETS["micro"], "encoder_decoder", corpus.vocab_size, seed=1)
    weights = load_file(folder / "encoder_decoder-trained" / "model" / "state" / "state.safetensors")
    presets_model.load_state_dict({name: weights[f"model.{name}"] for name, _ in presets_model.named_parameters()})
    rows = Pieces(tuple(corpus.held_out.values()), corpus, 64, seed=3)
    batch = rows.batch(0, 12)
    with torch.inference_mode():
        own = float(presets_model(**{name: torch.from_numpy(values) for name, values in batch.items()}))
    pieces = [
        held_out.Spans(document=0, inputs=inputs[mask], targets=targets[targets >= 0])
        for inputs, mask, targets in zip(batch["inputs"], batch["inputs_mask"], batch["targets"], strict=True)
    ]
    model = evaluate_base.load(folder / "encoder_decoder-trained" / "evaluation" / "model", "encoder_decoder")
    nats = held_out.span_nats(model, pieces, corpus.pad_id, torch.device("cpu"), lambda _: None)
    return abs(own - float(np.concatenate(nats).mean()))


def refuse(folder: Path, model: Path, corpus: Path) -> dict[str, list[Any]]:
    """What is said to channels and hyper-parameters that cannot be meant, and which files it left."""
    found = {}
    for name, spoil in SPOILT.items():
        place = folder / name.replace(" ", "-")
        shutil.copytree(model, place / "channels" / "model")
        shutil.copytree(corpus, place / "channels" / "corpus")
        given = spoil(place / "channels" / "model", place / "channels" / "corpus")
        parameters = given if isinstance(given, dict) else {}
        said = "nothing"
        try:
            evaluated(place, place / "channels" / "model", place / "channels" / "corpus", **parameters)
        except BadInput as error:
            said = str(error)
        left = {path.name for path in (place / "evaluation").iterdir()}
        found[name] = [said, sorted(left & {harness.MANIFEST, evaluate_base.EVALUATION})]
    return found


def _change(file: str, **values: Any) -> Callable[[Path, Path], None]:
    """Other values in a JSON file of one of the channels."""

    def spoil(model: Path, corpus: Path) -> None:
        path = model.parent / file
        write_json(path, {**json.loads(path.read_bytes()), **values})

    return spoil


def _change_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path, Path], None]:
    def spoil(model: Path, corpus: Path) -> None:
        file = model / "state" / "state.safetensors"
        weights = load_file(file)
        change(weights)
        save_file(weights, file)

    return spoil


def _no_held_out(model: Path, corpus: Path) -> None:
    manifest = json.loads((corpus / "manifest.json").read_bytes())
    files = [file for file in manifest["files"] if file["split"] == "train"]
    nothing = {"tokens": 0, "documents": 0, "bytes": 0}
    write_json(corpus / "manifest.json", {**manifest, "files": files, "held_out": nothing})


def _other_tokenizer(model: Path, corpus: Path) -> None:
    """One whose letters are three bytes each."""
    text = json.loads((corpus / "tokenizer.json").read_bytes())
    vocab = text["model"]["vocab"]
    text["model"]["vocab"] = {name * 3 if len(name) == 1 else name: number for name, number in vocab.items()}
    (corpus / "tokenizer.json").write_text(json.dumps(text))


def _moved_token(model: Path, corpus: Path) -> None:
    text = json.loads((corpus / "tokenizer.json").read_bytes())
    text["added_tokens"][0]["content"] = "</s>"
    (corpus / "tokenizer.json").write_text(json.dumps(text))


SPOILT: dict[str, Callable[[Path, Path], Any]] = {
    "not final": _change("model/mark.json", step=70),
    "no mark": lambda model, corpus: (model / "mark.json").unlink(),
    "mark of another schema": _change("model/mark.json", schema_version=2),
    "state of another schema": _change("model/state/state.json", schema_version=2),
    "no state": lambda model, corpus: (model / "state" / "state.json").unlink(),
    "no configuration": _change("model/state/state.json", model_config={}),
    "torn weights": lambda model, corpus: (model / "state" / "state.safetensors").write_bytes(b"torn"),
    "no weights": _change_weights(lambda weights: [weights.pop(name) for name in list(weights) if name[0] == "m"]),
    "a weight is missing": _change_weights(lambda weights: weights.pop("model.model.norm.weight")),
    "a weight is no number": _change_weights(lambda weights: weights["model.model.norm.weight"].fill_(float("nan"))),
    "another corpus": _change("model/state/state.json", corpus_digest="other"),
    "another vocabulary": _change("model/state/state.json", vocab_size=99),
    "another digest": _change("corpus/manifest.json", tokenizer_digest="other"),
    "another tokenizer": _other_tokenizer,
    "a special token elsewhere": _moved_token,
    "no tokenizer": lambda model, corpus: (corpus / "tokenizer.json").unlink(),
    "no held-out": _no_held_out,
    "too few tokens": lambda model, corpus: {"max_held_out_tokens": 10},
    "order": lambda model, corpus: {"ngram_order": 7},
}


def main(folder: Path) -> None:
    """All of it."""
    found: dict[str, Any] = {}
    for architecture, letters in LETTERS.items():
        corpus = write_corpus(folder / f"corpus-{architecture}", letters)
        for name, (steps, rate) in {"trained": TRAINED[architecture], "untrained": UNTRAINED}.items():
            place = folder / f"{architecture}-{name}"
            evaluated(place, pretrained(place, corpus, architecture, steps=steps, learning_rate=rate), corpus)
        place = folder / f"{architecture}-trained"
        again = evaluated(folder / f"{architecture}-again", place / "model", corpus, max_held_out_tokens=50_001)
        found[architecture] = {
            "is_same_again": again == json.loads((place / "evaluation" / "evaluation.json").read_bytes()),
            "bounded": evaluated(folder / f"{architecture}-short", place / "model", corpus, max_held_out_tokens=1000),
            "export": compare_export(place, architecture, corpus),
        }
    found["scores"] = compare_scores(folder)
    found["spans"] = compare_spans(folder, open_corpus(folder / "corpus-encoder_decoder"))
    found["refused"] = refuse(folder / "refused", folder / "decoder-trained" / "model", folder / "corpus-decoder")
    write_json(folder / "found.json", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
