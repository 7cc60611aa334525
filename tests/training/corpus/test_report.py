from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from include.training.corpus.report import STEPS, Tally

EVENTS = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from([None, "too_short", "malformed", "contaminated"])), max_size=20
)


def tally(events: list[tuple[str, str | None]]) -> Tally:
    found = Tally()
    for source, reason in events:
        found.read[source] += 1
        if reason is None:
            found.note("languages", "en")
        else:
            found.drop(source, reason)
            found.sample(reason, {"text": "x" * 1000, "locator": None})
    return found


@given(EVENTS, EVENTS)
def test_parts_add_up(first: list[tuple[str, str | None]], second: list[tuple[str, str | None]]) -> None:
    whole = tally(first + second)
    merged = Tally.from_json(tally(first).to_json())
    merged.add(Tally.from_json(tally(second).to_json()))
    assert merged.to_json() == whole.to_json()
    assert merged.read.total() == len(first) + len(second)
    assert merged.reasons.total() + sum(whole.notes.get("languages", {}).values()) == merged.read.total()


def test_few_samples_are_kept_and_their_texts_cut() -> None:
    samples = tally([("a", "too_short")] * 9).samples["too_short"]
    assert samples == [{"text": "x" * 200, "locator": None}] * 3


def test_a_reason_belongs_to_one_step() -> None:
    reasons = [reason for names in STEPS.values() for reason in names]
    assert len(reasons) == len(set(reasons))
