"""The deletion guard: a run that would take much out of an index asks a person first.

A source that is half mounted, or a pattern that is too narrow, looks like a source whose documents were deleted. So
where more than `max_deleted_percent` of what the index holds of a source would leave it, nothing of that is deleted
until somebody agrees to exactly that list: the digest of the list is part of what is asked and of what is answered,
and the commit compares it with what it is about to delete.
"""

from __future__ import annotations

import heapq
import json
import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from upath import UPath

from include.errors import StateMovedError
from include.rag.config import IngestConfig
from include.storage import digest, read_json, write_json

log = logging.getLogger(__name__)

FEW = 5
"""Fewer deletions than this are never asked about: in a small index one document is many percent."""
SHOWN = 20
SHOWN_CHARACTERS = 100
"""Of one name; a longer one loses its middle."""
BODY_BYTES = 3000
"""Of the question as JSON, where names are left out if need be: it travels in an XCom of 4 KB."""
KEEP = "Keep them"


def evidence(
    config: IngestConfig, deleted: Iterable[tuple[str, str]], *, indexed: int, list_uri: str
) -> dict[str, Any]:
    """What would leave the index and whether a person must be asked; small enough for an XCom.

    `deleted`: (document id, path) of all that would leave the index's live version, in any order; `indexed`: how many
    documents of the source that version holds; `list_uri`: where all of the list can be read. A run asks about one list
    only: Airflow goes on showing the first question of a task after it was cleared, so another list is not asked about
    but kept.
    """
    ids: list[str] = []
    names = heapq.nsmallest(SHOWN, _paths(deleted, ids))
    list_digest = _digest(ids)
    found: dict[str, Any] = {"deletions": len(ids), "digest": list_digest, "ask": False}
    is_many = len(ids) >= FEW and 100 * len(ids) > config.max_deleted_percent * indexed
    share = f"{len(ids):,} of {indexed:,} documents"
    if not is_many:
        return found | {"delete": True, "why": f"{share} are not too many to delete unasked"}
    if config.on_many_deletions != "ask":
        delete = config.on_many_deletions == "delete"
        return found | {"delete": delete, "why": f"{share}: on_many_deletions={config.on_many_deletions!r}"}
    if not _is_first_question(config, list_digest):
        why = f"{share}: this run asked about another list before, and Airflow would show that one again"
        return found | {"delete": False, "why": why}
    label = f"list {list_digest[:16]}"
    return found | {
        "ask": True,
        "subject": f"Delete {share} from index {config.index}? ({label})",
        "body": _body(config, share, names, len(ids), list_uri),
        "options": [f"Delete them ({label})", KEEP],
        "default": KEEP,
        "hours": config.answer_hours,
    }


def settle(config: IngestConfig, found: Mapping[str, Any], answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """Decide by the answer, as HITLOperator hands it on; None: there was no question, or none was answered.

    Only the option that names this very list deletes it. The decision is written for the commit and is safe to repeat.
    """
    delete, why, by = _judge(found, answer) if found["ask"] else (found["delete"], found["why"], None)
    number = found["deletions"]
    decision = {
        "delete": delete,
        "why": why,
        "answered_by": by,
        "digest": found["digest"],
        "deleted": number if delete else 0,
        "held": 0 if delete else number,
    }
    write_json(_decision(config), decision)
    log.log(logging.INFO if delete else logging.WARNING, "%s: %s", "deleted" if delete else "kept", why)
    return decision


def approved(config: IngestConfig, doc_ids: Collection[str]) -> bool:
    """Whether these documents may be deleted, by the decision of settle(); none at all may be.

    StateMovedError if that was about another list; FileNotFoundError if nothing was decided.
    """
    if not doc_ids:
        return True
    decision = settled(config)
    if decision["digest"] != _digest(doc_ids):
        raise StateMovedError(
            "the documents to delete are not those that were decided on: clear the plan task and what follows"
        )
    return bool(decision["delete"])


def settled(config: IngestConfig) -> dict[str, Any]:
    """What settle() decided; `deleted` and `held` count documents."""
    value: dict[str, Any] = read_json(_decision(config))
    return value


def held(config: IngestConfig) -> int:
    """How many documents settle() decided to keep; 0 where nothing was to be decided."""
    return int(settled(config)["held"]) if _decision(config).exists() else 0


def _judge(found: Mapping[str, Any], answer: Mapping[str, Any] | None) -> tuple[bool, str, str | None]:
    """(delete, why, who answered)."""
    if not answer:  # somebody marked the task as done
        return False, "the question was not answered", None
    [option], user = answer["chosen_options"], answer["responded_by_user"]
    by = user["name"] if user else None
    if option == KEEP:
        return False, f"{by} answered {KEEP!r}" if by else f"nobody answered within {found['hours']:g} hours", by
    wanted = found["options"][0]
    if option == wanted:
        return True, f"{by} answered {option!r}", by
    return False, f"refused: the answer {option!r} of {by} is about another list, {wanted!r} was asked for", by


def _is_first_question(config: IngestConfig, list_digest: str) -> bool:
    """Whether this run has asked about no other list."""
    path = config.run_home / "deletions-asked.json"
    if not path.exists():
        write_json(path, {"digest": list_digest})
    return bool(read_json(path)["digest"] == list_digest)


def _paths(deleted: Iterable[tuple[str, str]], ids: list[str]) -> Iterator[str]:
    """The paths of the documents, whose ids are put into a list on the way."""
    for doc_id, path in deleted:
        ids.append(doc_id)
        yield path


def _digest(doc_ids: Iterable[str]) -> str:
    return digest(*sorted(doc_ids))


def _decision(config: IngestConfig) -> UPath:
    return config.run_home / "deletions.json"


def _body(config: IngestConfig, share: str, names: list[str], number: int, list_uri: str) -> str:
    """The question in Markdown. What a source has named stands in code blocks, where nothing is markup or a link."""
    head = (
        f"{share} that index {config.index} holds of this source are no longer there. Up to "
        f"{config.max_deleted_percent:g} % are deleted without a question.\n\n{_block(_short(config.source))}\n\n"
    )
    tail = (
        f"All {number:,}, one in a line:\n\n{_block(visible(list_uri))}\n\nIf they are kept, they stay in the index "
        "and can be found; the next run asks again. So it is if nobody answers within "
        f"{config.answer_hours:g} hours. The index is written after the answer; what is new is embedded meanwhile."
    )
    names = [_short(name) for name in names]
    while True:
        title = f"The first {len(names)} by path:" if len(names) < number else "These are they:"
        # A block for each: the page shows the lines of one block on one line.
        listed = "\n\n".join([title, *map(_block, names), ""]) if names else ""
        body = head + listed + tail
        if not names or len(json.dumps(body)) <= BODY_BYTES:
            return body
        names = names[:-1]


def visible(name: str) -> str:
    """A name on one line, as it is: line ends, controls and marks that reorder text are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _short(name: str) -> str:
    name = visible(name)
    half = SHOWN_CHARACTERS // 2
    return name if len(name) <= SHOWN_CHARACTERS else f"{name[:half]} ... {name[-half:]}"


def _block(line: str) -> str:
    """A code block whose fence is longer than any that the line could close it with."""
    longest = max(map(len, re.findall("`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{line}\n{fence}"
