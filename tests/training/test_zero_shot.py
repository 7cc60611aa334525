"""The zero-shot task: questions that are fair, answered by what the passage makes likelier, and how sure that is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.training.held_out import Document
from include.training.zero_shot import CHOICE_TOKENS, NUM_CHOICES, PROMPT_TOKENS, answers, make_items, summary, wilson
from tests.training.evaluated import evaluation

END = 0
SIZE = PROMPT_TOKENS + CHOICE_TOKENS


def make_document(number: int, *, passages: int = 3, source: str = "one") -> Document:
    """A document whose tokens tell its number and their place."""
    tokens = np.array([*(number * 1000 + 1 + np.arange(passages * SIZE - 1)), END])
    return Document(source=source, number=number, tokens=tokens, text="")


def test_questions_are_passages_with_their_own_continuation_among_others() -> None:
    documents = [make_document(number) for number in range(1, 6)]
    items = make_items(documents, END, seed=1)
    assert len(items) == 15
    for item in items:
        assert item.prompt.shape == (PROMPT_TOKENS,) and item.choices.shape == (NUM_CHOICES, CHOICE_TOKENS)
        assert item.choices[item.answer][0] == item.prompt[-1] + 1
        assert len({int(choice[0]) // 1000 for choice in item.choices}) == NUM_CHOICES, "each from another document"
    assert len({item.answer for item in items}) == NUM_CHOICES
    assert sum(item.prompt[0] == END for item in items) == 5, "a document's first passage begins where it does"


def test_the_same_seed_asks_the_same_questions() -> None:
    documents = [make_document(number) for number in range(1, 9)]
    first, again, other = (make_items(documents, END, seed) for seed in (1, 1, 2))
    told = [
        [(one.prompt.tolist(), one.choices.tolist(), one.answer) for one in items] for items in (first, again, other)
    ]
    assert told[0] == told[1] != told[2]
    assert len(make_items(documents, END, 1, max_items=5)) == 5


def test_others_are_of_the_same_source_and_enough() -> None:
    few = [make_document(number, source="few") for number in range(1, 4)]
    many = [make_document(number, source="many") for number in range(11, 15)]
    short = [Document(source="few", number=9, tokens=np.arange(9, 9 + SIZE - 2), text="")]
    items = make_items([*few, *many, *short], END, seed=1)
    assert len(items) == 12
    assert all(item.choices.min() > 10_000 for item in items), "three documents with a passage are too few"
    assert make_items(few, END, seed=1) == make_items([], END, seed=1) == []


def test_a_continuation_that_stands_elsewhere_too_asks_nothing() -> None:
    tokens = np.append(np.arange(1, SIZE), END)
    same = [Document(source="one", number=number, tokens=tokens, text="") for number in range(6)]
    assert make_items(same, END, seed=1) == []


def test_the_answer_is_what_the_passage_makes_likelier_by_most() -> None:
    items = make_items([make_document(number) for number in range(1, 9)], END, seed=1)
    nothing = np.array([END])

    def knows(prompts: np.ndarray, choices: np.ndarray) -> np.ndarray:
        likely_anywhere = 50.0 * (choices[..., 0] // 1000)
        follows = prompts[:, None, -1] + 1 == choices[..., 0]
        return likely_anywhere - 100 + 5.0 * follows

    assert answers(items, knows, nothing) == [item.answer for item in items]

    def knows_not(prompts: np.ndarray, choices: np.ndarray) -> np.ndarray:
        return 50.0 * (choices[..., 0] // 1000) - 100.0

    assert set(answers(items, knows_not, nothing)) == {0}


@pytest.mark.parametrize(
    ("correct", "asked", "low", "high"), [(5, 10, 0.2366, 0.7634), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0)]
)
def test_the_interval_is_wilsons(correct: int, asked: int, low: float, high: float) -> None:
    assert wilson(correct, asked) == pytest.approx((low, high), abs=1e-4)


@given(asked=st.integers(1, 500), data=st.data())
def test_the_interval_holds_the_share_and_lies_within_0_to_1(asked: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, asked))
    low, high = wilson(correct, asked)
    assert 0 <= low <= correct / asked + 1e-12 and correct / asked - 1e-12 <= high <= 1
    assert high - low > 0


def test_no_question_is_no_accuracy() -> None:
    found = summary([], [])
    assert (found["items"], found["accuracy"], found["low"], found["high"]) == (0, None, 0.0, 1.0)


@pytest.mark.parametrize("architecture", ["decoder", "encoder_decoder"])
def test_a_trained_model_answers_and_an_untrained_one_guesses(architecture: str) -> None:
    trained, untrained = (evaluation(f"{architecture}-{name}")["zero_shot"] for name in ("trained", "untrained"))
    assert trained["items"] == untrained["items"] > 15
    assert trained["low"] > trained["chance"] == 0.25
    assert untrained["low"] < 0.25
