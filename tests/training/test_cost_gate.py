"""The cost gate: when it asks, what it shows, and whose answer it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from include.errors import GateError, StateMovedError
from include.storage import read_json
from include.training.config import PretrainConfig
from include.training.cost_gate import REJECT, question, settle
from include.training.plan import plan
from include.training.presets import PRESETS
from tests.training.planning import MACHINE, here, on_aws

CORPUS = 10**9


@pytest.fixture
def dear(root: str) -> PretrainConfig:
    """A run of some 730 USD."""
    return on_aws(root=root, size="1b")


def asked(config: PretrainConfig) -> dict[str, Any]:
    return question(config, plan(config, CORPUS, compute=MACHINE if config.is_local else None))


def answer(option: str, user: str | None = "ann") -> dict[str, Any]:
    """As HITLOperator hands it on; without a user nobody answered in time, and the option is the default."""
    by = {"id": user, "name": user} if user else None
    return {"chosen_options": [option], "params_input": {}, "responded_by_user": by}


def written(config: PretrainConfig) -> dict[str, Any]:
    found: dict[str, Any] = read_json(config.run_home / "approval.json")
    return found


class TestWhenItAsks:
    @pytest.mark.parametrize(("limit", "asks"), [(0, True), (0.18, True), (0.19, False), (5, False)])
    def test_above_the_limit(self, limit: float, asks: bool) -> None:
        assert asked(on_aws(approve_above_usd=limit))["ask"] is asks  # tiny costs 0.185 USD

    def test_a_run_that_costs_the_limit_is_not_asked_about(self) -> None:
        usd = plan(on_aws(), CORPUS).cost.usd
        assert not asked(on_aws(approve_above_usd=usd))["ask"]

    @settings(deadline=None)
    @given(usd_per_hour=st.floats(0.01, 1000), limit=st.floats(0, 500))
    def test_it_asks_if_and_only_if_the_cost_is_above_the_limit(self, usd_per_hour: float, limit: float) -> None:
        config = on_aws(usd_per_hour=usd_per_hour, approve_above_usd=limit)
        usd = plan(config, CORPUS).cost.usd
        assert usd is not None and asked(config)["ask"] is (usd > limit)

    def test_a_cost_that_is_not_known_is_asked_about_whatever_the_limit(self) -> None:
        found = asked(on_aws(size="1b", instance_type="ml.p5en.48xlarge", approve_above_usd=1e9))
        assert found["ask"]
        assert found["subject"].startswith("Pre-train docs-lm for an unknown cost? (plan ")
        assert "not known (no price of ml.p5en.48xlarge is known: give Param usd_per_hour)" in found["body"]

    def test_this_machine_is_not_asked_about_even_by_a_limit_of_nothing(self) -> None:
        found = asked(here(approve_above_usd=0))
        assert not found["ask"]
        assert found["why"].startswith("0.00 USD, this machine: nothing is charged for it")

    def test_this_machine_is_asked_about_if_it_has_a_price(self) -> None:
        assert asked(here(approve_above_usd=0, usd_per_hour=1))["ask"]


class TestWhatItShows:
    def test_the_cost_and_the_plan(self) -> None:
        config = on_aws(size="1b", answer_hours=12, model_name="house-lm")
        found = asked(config)
        label = f"plan {found['digest'][:16]}"
        assert found["subject"] == f"Pre-train house-lm for about 730.48 USD? ({label})"
        assert found["options"] == [f"Approve ({label})", REJECT]
        assert found["hours"] == 12
        for shown in ("931,735,552 parameters", "1 x ml.p5.48xlarge", "If nobody answers within 12 hours", "5.00 USD"):
            assert shown in found["body"]

    def test_it_is_a_table(self) -> None:
        html = MarkdownIt("commonmark").enable("table").render(asked(on_aws(size="1b"))["body"])
        assert html.count("<table>") == 1
        assert "<td>cost</td>\n<td>730.48 USD (catalog: on demand in us-east-1, " in html

    @pytest.mark.parametrize("size", PRESETS)
    def test_it_is_small_enough_for_an_xcom(self, size: str) -> None:
        found = asked(on_aws(size=size, approve_above_usd=0, budget_usd=10_000, spot=True))
        assert found["ask"] and len(json.dumps(found)) < 4096


class TestWhoseAnswerItTakes:
    def test_without_a_question_the_run_goes_on(self, root: str) -> None:
        config = here(root=root)
        decision = settle(config, asked(config), None)
        assert decision["approved"] and decision["answered_by"] is None
        assert written(config) == decision

    def test_approved(self, dear: PretrainConfig) -> None:
        found = asked(dear)
        decision = settle(dear, found, answer(found["options"][0]))
        assert decision == {
            "approved": True,
            "why": f"ann answered {found['options'][0]!r}",
            "answered_by": "ann",
            "digest": found["digest"],
        }
        assert written(dear) == decision
        assert settle(dear, found, answer(found["options"][0])) == decision, "it is safe to repeat"

    def test_rejected(self, dear: PretrainConfig) -> None:
        with pytest.raises(
            GateError, match=r"^the cost of this run is not approved: ann answered 'Reject'; nothing was"
        ):
            settle(dear, asked(dear), answer(REJECT))
        assert (written(dear)["approved"], written(dear)["answered_by"]) == (False, "ann")

    def test_nobody_answered_in_time(self, dear: PretrainConfig) -> None:
        with pytest.raises(GateError, match=r"nobody answered within 24 hours; nothing was spent$"):
            settle(dear, asked(dear), answer(REJECT, user=None))
        assert (written(dear)["approved"], written(dear)["answered_by"]) == (False, None)

    def test_a_question_that_was_passed_over_is_not_approved(self, dear: PretrainConfig) -> None:
        with pytest.raises(GateError, match="the question was not answered"):
            settle(dear, asked(dear), None)
        assert not written(dear)["approved"]

    def test_an_answer_about_another_plan_approves_nothing(self, dear: PretrainConfig) -> None:
        old = asked(dear.model_copy(update={"steps": 8_000}))
        with pytest.raises(
            StateMovedError, match=r"'Approve \(plan \w{16}\)' of ann is about another plan, .*a new run$"
        ):
            settle(dear, asked(dear), answer(old["options"][0]))
        assert not (dear.run_home / "approval.json").exists()

    def test_rejected_and_after_a_clear_approved(self, dear: PretrainConfig) -> None:
        with pytest.raises(GateError):
            settle(dear, asked(dear), answer(REJECT))
        again = asked(dear)
        assert settle(dear, again, answer(again["options"][0]))["approved"]

    def test_nothing_but_the_decision_is_written(self, dear: PretrainConfig, tmp_path: Path) -> None:
        found = asked(dear)
        settle(dear, found, answer(found["options"][0]))
        assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == ["approval.json"]
