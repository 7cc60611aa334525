"""The cost gate: a run whose plan costs more than a limit, or nobody knows how much, asks a person first.

Asked and answered is about one plan, by its digest: an answer to another one approves nothing. Without an answer
nothing is spent.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from include.errors import GateError, StateMovedError
from include.storage import write_json
from include.training.config import PretrainConfig
from include.training.plan import Plan, rows

log = logging.getLogger(__name__)

REJECT = "Reject"
"""What counts as the answer if there is none; `unanswered` of ask_a_person()."""


def question(config: PretrainConfig, made: Plan) -> dict[str, Any]:
    """What include/approval.py asks: `ask`, and why not, or subject, body and options; small enough for an XCom."""
    found: dict[str, Any] = {"digest": made.digest, "ask": False}
    limit, usd = config.approve_above_usd, made.cost.usd
    if usd is not None and usd <= limit:
        return found | {"why": f"{usd:,.2f} USD, {made.cost.basis}, are not more than approve_above_usd={limit:g}"}
    label = f"plan {made.digest[:16]}"
    cost = "an unknown cost" if usd is None else f"about {usd:,.2f} USD"
    return found | {
        "ask": True,
        "subject": f"Pre-train {config.model_name} for {cost}? ({label})",
        "body": _body(made, limit, config.answer_hours),
        "options": [f"Approve ({label})", REJECT],
        "hours": config.answer_hours,
    }


def settle(config: PretrainConfig, found: Mapping[str, Any], answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """The approval by the answer, as HITLOperator hands it on; None: there was no question, or none was answered.

    found: what question() gave. The decision is written to the run's home and is safe to repeat. GateError if the run
    is not approved, StateMovedError if the answer is about another plan.
    """
    approved, why, by = _judge(found, answer) if found["ask"] else (True, found["why"], None)
    decision = {"approved": approved, "why": why, "answered_by": by, "digest": found["digest"]}
    write_json(config.run_home / "approval.json", decision)
    if not approved:
        raise GateError(f"the cost of this run is not approved: {why}; nothing was spent")
    log.info("approved: %s", why)
    return decision


def _judge(found: Mapping[str, Any], answer: Mapping[str, Any] | None) -> tuple[bool, str, str | None]:
    """(approved, why, who answered)."""
    if not answer:  # somebody marked the task as done
        return False, "the question was not answered", None
    [option], user = answer["chosen_options"], answer["responded_by_user"]
    by = user["name"] if user else None
    if option == REJECT:
        return False, f"{by} answered {REJECT!r}" if by else f"nobody answered within {found['hours']:g} hours", by
    wanted = found["options"][0]
    if option != wanted:  # after the plan task was cleared, Airflow goes on showing the first question
        raise StateMovedError(
            f"the answer {option!r} of {by} is about another plan, {wanted!r} was asked for: trigger a new run"
        )
    return True, f"{by} answered {option!r}", by


def _body(made: Plan, limit: float, hours: float) -> str:
    """The question in Markdown; all of it is ours, no text of a document or a source."""
    table = "\n".join(f"| {what} | {how_much} |" for what, how_much in rows(made))
    return (
        f"Up to {limit:,.2f} USD are spent without a question (approve_above_usd).\n\n| | |\n|---|---|\n{table}\n\n"
        f"Nothing has been spent yet. If nobody answers within {hours:g} hours, the run ends."
    )
