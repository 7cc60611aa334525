"""The tokenizer: any text comes back, special tokens stay where they are, and only train documents make it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from upath import UPath

from include.errors import DriftError, PermanentError, UserError
from include.storage import location
from include.training import tokenizer as module
from include.training.tokenizer import (
    BATCH_CHARACTERS,
    LARGEST,
    ODD_TEXTS,
    SMALLEST,
    SPECIAL,
    TokenizerReport,
    check_round_trip,
    check_vocab_size,
    encode,
    open_tokenizer,
    read_report,
    train_tokenizer,
    vocabulary_digest,
)
from tests.training.curated_parts import Given, prose, write_part

VOCAB = 400
LOOK_ALIKES = [*SPECIAL, "<extra_id_0>", "<extra_id_99>"]


def train(folder: UPath, documents: list[Given], target: str = "corpus", **settings: int) -> TokenizerReport:
    """Train on two parts of these documents."""
    places = [write_part(folder, number, documents[number::2]) for number in range(2)]
    wanted = {"vocab_size": VOCAB, "sample_bytes": 10**6, "seed": 1} | settings
    return train_tokenizer([part for part, _ in places], [kept for _, kept in places], folder / target, **wanted)


DOCUMENTS = [Given(f"d{number}", prose(number), source=("docs", "code")[number % 2]) for number in range(20)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> UPath:
    folder = location(tmp_path_factory.mktemp("tokenizer").as_uri())
    train(folder, DOCUMENTS)
    return folder / "corpus"


@pytest.fixture(scope="module")
def tokenizer(home: UPath) -> Tokenizer:
    return open_tokenizer(home / "tokenizer.json")


def test_special_tokens_have_the_first_ids_and_sentinels_the_last(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_to_id(name) for name in SPECIAL] == [0, 1, 2, 3]
    sentinels = [tokenizer.token_to_id(f"<extra_id_{number}>") for number in range(100)]
    assert sentinels == list(range(VOCAB - 100, VOCAB))
    assert tokenizer.get_vocab_size() == VOCAB == len(set(tokenizer.get_vocab().values()))


@given(st.lists(st.text() | st.sampled_from([*LOOK_ALIKES, *ODD_TEXTS]), max_size=8).map("".join))
def test_any_text_comes_back_and_has_no_special_token(tokenizer: Tokenizer, text: str) -> None:
    (ids,) = encode(tokenizer, [text])
    assert tokenizer.decode(ids.tolist(), skip_special_tokens=False) == text
    assert not len(ids) or (ids.min() >= len(SPECIAL) and ids.max() < VOCAB - 100)


def test_special_tokens_are_read_where_they_are_meant(home: UPath) -> None:
    plain = Tokenizer.from_str((home / "tokenizer.json").read_text())
    assert plain.encode("<|user|>a<|end|>").ids[::2] == [2, 0]
    with pytest.raises(ValueError, match="open_tokenizer"):
        next(encode(plain, ["a"]))


def test_digits_stand_alone_however_often_a_number_was_seen(tmp_path: Path) -> None:
    train(location(tmp_path.as_uri()), [Given("d", "in 2026 and 2026 " * 100)], vocab_size=362)
    tokenizer = open_tokenizer(location(tmp_path.as_uri()) / "corpus" / "tokenizer.json")
    (ids,) = encode(tokenizer, ["2026and"])
    assert [tokenizer.decode([one]) for one in ids.tolist()][:4] == ["2", "0", "2", "6"]


@pytest.mark.parametrize("unit", ["a", " ", "\n", "=", "7", "漢", "aB3/", "e\u0301"])
def test_a_text_longer_than_a_batch_comes_back(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 1000)
    texts = ["short", unit * 2500, "", unit * 999, "b", unit * 1000]
    found = [tokenizer.decode(ids.tolist(), skip_special_tokens=False) for ids in encode(tokenizer, texts)]
    assert found == texts


def test_a_line_of_a_million_characters_is_encoded(tokenizer: Tokenizer) -> None:
    text = "x" * (BATCH_CHARACTERS + 1)
    (ids,) = encode(tokenizer, [text])
    assert tokenizer.decode(ids.tolist()) == text


def test_the_same_documents_make_the_same_bytes_in_any_process(tmp_path: Path, home: UPath) -> None:
    folder = location(tmp_path.as_uri())
    places = [write_part(folder, number, DOCUMENTS[number::2]) for number in range(2)]
    script = f"""if True:
        from include.storage import location
        from include.training.tokenizer import train_tokenizer
        parts, kept = {[str(part) for part, _ in places]}, {[str(kept) for _, kept in places]}
        train_tokenizer(
            list(map(location, parts)), list(map(location, kept)), location({str(folder / "again")!r}),
            vocab_size={VOCAB}, sample_bytes=10**6, seed=1,
        )"""
    environ = os.environ | {"RAYON_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", script], check=True, env=environ, cwd=Path(__file__).parents[2], timeout=60)
    for name in ("tokenizer.json", "tokenizer_report.json"):
        assert (folder / "again" / name).read_bytes() == (home / name).read_bytes()


def test_only_train_documents_that_were_kept_are_seen(tmp_path: Path, home: UPath) -> None:
    others = [
        Given("e0", "zygomorphic " * 500, split="held_out"),
        Given("e1", "zygomorphic " * 500, split=None),
        Given("e2", "zygomorphic " * 500, source="secret", split="held_out"),
    ]
    train(location(tmp_path.as_uri()), [*DOCUMENTS, *others])
    for name in ("tokenizer.json", "tokenizer_report.json"):
        assert (tmp_path / "corpus" / name).read_bytes() == (home / name).read_bytes()


def test_the_sample_is_bounded_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    documents = [Given(f"d{number}", prose(number)) for number in range(400)]
    settings = {"vocab_size": 380, "sample_bytes": 20_000}
    first = train(folder, documents, "first", **settings)
    assert first.sample_bytes == 20_000
    assert 40 < first.sample_documents < 100
    again = train(folder, documents[::-1], "again", **settings)
    assert (again.sample_bytes, again.sample_documents) == (first.sample_bytes, first.sample_documents)
    assert train(folder, documents, "other", **settings, seed=2) != first


def test_one_document_larger_than_the_sample_is_cut(tmp_path: Path) -> None:
    report = train(
        location(tmp_path.as_uri()), [Given("d", "漢字 and words, words " * 500)], vocab_size=370, sample_bytes=986
    )
    assert (report.sample_documents, report.sample_bytes) == (1, 984), "whole characters alone"


def test_the_report_tells_how_it_fares_by_source(tmp_path: Path) -> None:
    documents = [Given("w", "abc abc abc " * 100, source="words"), Given("n", "1 2 3 4 " * 100, source="numbers")]
    report = train(location(tmp_path.as_uri()), [*documents, Given("e", "", source="empty")], vocab_size=362)
    words, numbers, empty = (report.sources[name] for name in ("words", "numbers", "empty"))
    assert (words.documents, words.bytes, words.words) == (1, 1200, 300)
    assert words.tokens_per_word == pytest.approx(words.tokens / 300, abs=1e-4)
    assert words.bytes_per_token == pytest.approx(1200 / words.tokens, abs=1e-4)
    assert numbers.tokens_per_word is not None and numbers.tokens_per_word > 1
    assert (empty.documents, empty.tokens_per_word, empty.bytes_per_token) == (1, None, None)
    data = (tmp_path / "corpus" / "tokenizer.json").read_bytes()
    assert (report.tokenizer_digest, report.file_bytes) == (vocabulary_digest(data), len(data))
    assert read_report(location(tmp_path.as_uri()) / "corpus") == report


def test_what_is_measured_of_a_source_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEASURED_BYTES", 5000)
    documents = [Given(f"d{number}", prose(number)) for number in range(200)]
    documents.append(Given("rare", prose(7), source="rare"))
    report = train(location(tmp_path.as_uri()), documents, sample_bytes=30_000)
    assert report.sources["docs"].bytes == 5000
    assert report.sources["rare"].documents == 1, "a source is measured even where training did not draw it"


def test_the_digest_is_of_vocabulary_and_merges(home: UPath) -> None:
    held = json.loads((home / "tokenizer.json").read_bytes())
    first = vocabulary_digest(json.dumps(held).encode())
    assert first == vocabulary_digest(json.dumps(held, indent=3, sort_keys=True).encode()) and len(first) == 64
    held["model"]["merges"].reverse()
    assert vocabulary_digest(json.dumps(held).encode()) != first


@pytest.mark.parametrize("vocab_size", [SMALLEST - 1, 0, LARGEST + 1])
def test_a_size_that_no_vocabulary_has_is_refused(tmp_path: Path, vocab_size: int) -> None:
    with pytest.raises(UserError, match=rf"vocab_size={vocab_size} must be from 360 .* to 65536"):
        train(location(tmp_path.as_uri()), DOCUMENTS, vocab_size=vocab_size)
    assert not (tmp_path / "corpus").exists()


def test_the_smallest_vocabulary_is_the_bytes(tmp_path: Path) -> None:
    report = train(location(tmp_path.as_uri()), DOCUMENTS, vocab_size=SMALLEST)
    assert {figures.bytes_per_token for figures in report.sources.values()} == {1.0}
    check_vocab_size(LARGEST)


def test_a_vocabulary_larger_than_the_data_supports_is_refused_and_the_size_that_is_named_is_made(
    tmp_path: Path,
) -> None:
    folder = location(tmp_path.as_uri())
    with pytest.raises(UserError, match="vocab_size=5000 is more than a sample of .* bytes supports") as error:
        train(folder, DOCUMENTS, vocab_size=5000)
    assert "\n" not in str(error.value)
    assert not (folder / "corpus").exists()
    reached = int(str(error.value).split("Allowed are 360 to ")[1].split(",")[0])
    assert train(folder, DOCUMENTS, vocab_size=reached).vocab_size == reached
    with pytest.raises(UserError, match=f"vocab_size={reached + 1} "):
        train(folder, DOCUMENTS, "other", vocab_size=reached + 1)


@pytest.mark.parametrize(
    "documents",
    [[], [Given("a", "text", split="held_out")], [Given("a", "")]],
    ids=["nothing", "all held out", "no text"],
)
def test_a_corpus_without_train_documents_is_refused(tmp_path: Path, documents: list[Given]) -> None:
    with pytest.raises(UserError, match="no train document with text"):
        train(location(tmp_path.as_uri()), documents)


def test_a_sample_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sample_bytes=0"):
        train(location(tmp_path.as_uri()), DOCUMENTS, sample_bytes=0)


def test_a_tokenizer_that_loses_text_is_refused(tokenizer: Tokenizer) -> None:
    check_round_trip(tokenizer, {"docs": ["Any Text"]})
    lossy = Tokenizer.from_str(tokenizer.to_str())
    lossy.encode_special_tokens = True
    lossy.normalizer = normalizers.Lowercase()
    with pytest.raises(PermanentError, match="text 1 of docs"):
        check_round_trip(lossy, {"docs": ["lower", "Upper"]})
    with pytest.raises(PermanentError, match="of odd texts"):
        check_round_trip(lossy, {})


def test_parts_that_do_not_fit_what_was_kept_are_refused(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    part, _ = write_part(folder / "one", 0, DOCUMENTS[:2])
    for documents, message in (
        (DOCUMENTS[:3], "keeps 3 documents, but .* has 2 of these"),
        ([Given("d0", "x"), Given("d0", "y")], "names 1 documents twice"),
        ([Given("d0", "x", split="test")], "splits \\['test'\\]"),
    ):
        _, kept = write_part(folder / "two", 0, documents)
        with pytest.raises(DriftError, match=message):
            train_tokenizer([part], [kept], folder, vocab_size=VOCAB, sample_bytes=100, seed=1)


def test_what_is_no_tokenizer_is_told(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    with pytest.raises(UserError, match="train the tokenizer first"):
        open_tokenizer(folder / "tokenizer.json")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="is no tokenizer.json"):
        open_tokenizer(folder / "tokenizer.json")
    with pytest.raises(UserError, match="tokenizer_report.json"):
        read_report(folder)


def test_a_corpus_that_is_whole_keeps_its_tokenizer(tmp_path: Path) -> None:
    folder = location(tmp_path.as_uri())
    first = train(folder, DOCUMENTS)
    (tmp_path / "corpus" / "manifest.json").write_text("{}")
    assert train(folder, DOCUMENTS, vocab_size=370) == first
