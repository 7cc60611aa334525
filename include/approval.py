"""Ask a person in the middle of a run, by Airflow's human-in-the-loop; the question is made by an earlier task."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.standard.operators.hitl import HITLOperator
    from airflow.sdk import Context


def ask_a_person(question: Any, *, task_id: str, unanswered: str, **arguments: Any) -> HITLOperator:
    """A task that asks what an earlier task's XCom says, and waits for the answer without holding a slot.

    `question`: a dict with `ask` (false: the task is skipped, and `why` says why), `subject`, `body` in Markdown,
    `options`, and `hours` until the option `unanswered` is taken as the answer. Hands on what HITLOperator does:
    `chosen_options`, `responded_by_user` (None: nobody) and more. Asking is safe to repeat, and must be: an answer
    within two seconds of the question can fail the attempt, and the next one asks again. So leave it its retries.
    """
    operator: HITLOperator = _operator()(task_id=task_id, question=question, unanswered=unanswered, **arguments)
    return operator


@cache
def _operator() -> type[Any]:
    # Made here, where a DAG file has loaded Airflow already: the rest of include/ works without it.
    from airflow.providers.standard.operators.hitl import HITLOperator
    from airflow.sdk.exceptions import AirflowSkipException

    class QuestionOperator(HITLOperator):
        # The XCom is taken over as it is. Subject and body hold what a document is called, which is no template.
        template_fields = ("question",)

        def __init__(self, *, question: Any, unanswered: str, **kwargs: Any) -> None:
            super().__init__(subject="", options=[unanswered], defaults=unanswered, **kwargs)
            self.question = question

        def execute(self, context: Context) -> Any:
            question = self.question
            if not question["ask"]:
                raise AirflowSkipException(f"nothing to ask: {question['why']}")
            self.subject, self.body, self.options = question["subject"], question["body"], question["options"]
            self.validate_defaults()
            self.response_timeout = timedelta(hours=question["hours"])  # the scheduler's; no process waits
            return super().execute(context)

        def validate_chosen_options(self, chosen_options: list[str]) -> None:
            """Left to whoever settles: the API compared them with what it showed, which may be an older question."""

    return QuestionOperator
