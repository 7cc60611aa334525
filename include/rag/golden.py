"""Golden questions: made from the documents by a rule, without a language model, or read from a file that people wrote.

The rule makes known-item questions (after Azzopardi, de Rijke and Balog, SIGIR 2007) and takes out of them what would
be trivial. They show whether an index finds what it holds. Their words still come from the documents, which favours
full text: which mode serves people best is for people's own questions to say.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from include.documents.document import Document
from include.errors import UserError
from include.storage import digest

SENTENCE_WORDS = range(8, 41)
QUESTION_WORDS = range(4, 6)
MOST_RELEVANT = 3
"""A question that more documents answer is too vague: who asks it looks for no particular one."""
SENTENCES_TRIED = 50
ORDERS_TRIED = 20

RULE = (
    f"From each document of a sample, one sentence of {SENTENCE_WORDS[0]} to {SENTENCE_WORDS[-1]} words is chosen by "
    f"hash: running text, no heading, table, list of parameters or code. {QUESTION_WORDS[0]} or {QUESTION_WORDS[-1]} "
    "of its content words, chosen and ordered by hash, are the question. A word takes another form, as plural or past "
    "tense, where the sample has one that the document has not. Left out are words of one document only, words of more "
    "than half of the documents, identifiers and numbers; at most one word stands in the title or a heading, and no "
    "three words in a row occur in the document. Relevant is every document with a sentence that holds all the words, "
    f"in any form; a question with more than {MOST_RELEVANT} such documents is dropped. The words come from the "
    "documents, which favours full text: people's own questions say better which mode serves them."
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A question and the documents that answer it."""

    id: str
    """A digest of the text and of what was relevant when it was made, so that reports of two runs can be paired."""
    text: str
    relevant: frozenset[str]
    """Ids of documents."""
    made_from: str | None = None
    """The document whose sentence it is made of; None for a question from a file."""
    roots: frozenset[str] = frozenset()
    """Its words without their endings, if it was made."""


def make_questions(
    documents: Iterable[tuple[str, str, Document]], *, limit: int = 100, seed: str = "golden"
) -> list[Question]:
    """Up to `limit` questions by RULE from (id, title, document), at most one for each document.

    The same documents give the same questions in any order. Another document changes a question only through words
    that both hold, or that come to stand in more than half of the documents or no longer do. Scripts without spaces
    between words give none.
    """
    pages = [_page(doc_id, title, document) for doc_id, title, document in documents]
    pages.sort(key=lambda page: (digest(seed, page.doc_id), page.doc_id))
    sample = _Sample(pages)
    made: dict[str, Question] = {}
    for page in pages:
        if len(made) >= limit:
            break
        if (question := _question(page, sample, seed)) is not None:
            made.setdefault(question.id, question)
    return list(made.values())


def pooled(questions: Iterable[Question], found: Mapping[str, Iterable[tuple[str, str]]]) -> list[Question]:
    """The questions, each with those found documents added that answer it by RULE.

    `found` holds (document id, passage's text) by question id. A sample does not see what the rest of an index holds:
    a copy of a sentence that lies outside of it is no miss. Questions from a file stay as people judged them.
    """
    extended = []
    for question in questions:
        passages = found.get(question.id, ()) if question.roots else ()
        more = {doc_id for doc_id, text in passages if _answers(text, question.roots)}
        extended.append(replace(question, relevant=question.relevant | more))
    return extended


def read_questions(lines: Iterable[str], doc_id: Callable[[str], str]) -> list[Question]:
    """Questions from JSON lines {"question": ..., "relevant": ["path below the source", ...]}; `doc_id` maps a path.

    A path that the index does not hold stays, and is missed. UserError with the number of the first line that is wrong.
    """
    questions: dict[str, Question] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        text, paths = _asked(line, number)
        relevant = frozenset(map(doc_id, paths))
        question = Question(id=_id(text, relevant), text=text, relevant=relevant)
        if question.id in questions:
            raise UserError(f"golden questions, line {number}: asked already, on an earlier line: {text!r}")
        questions[question.id] = question
    if not questions:
        raise UserError('golden questions: the file holds none; a line is {"question": "...", "relevant": ["path"]}')
    return list(questions.values())


def _asked(line: str, number: int) -> tuple[str, list[str]]:
    where = f"golden questions, line {number}"
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise UserError(f"{where}: {type(row).__name__} where an object is expected")
    if unknown := sorted(row.keys() - {"question", "relevant"}):
        raise UserError(f"{where}: field {unknown[0]!r} is not known; allowed: question, relevant")
    text, paths = row.get("question"), row.get("relevant")
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: question={text!r} must be a text that is not empty")
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
        raise UserError(f"{where}: relevant={paths!r} must be a list of at least one path below the source")
    try:
        "".join((text, *paths)).encode()
    except UnicodeEncodeError:
        raise UserError(f"{where}: half of a surrogate pair, no text") from None
    return " ".join(text.split()), paths


@dataclass(frozen=True, kw_only=True, slots=True)
class _Page:
    """A document, taken apart as far as all questions need it."""

    doc_id: str
    text: str
    running: str
    """All words in their order between single spaces, title and headings included: holds every run of words."""
    words: frozenset[str]
    roots: frozenset[str]
    titled: frozenset[str]
    """Roots of the words of the title and of headings."""
    candidates: tuple[str, ...]
    """Sentences that a question may be made of."""


class _Sample:
    def __init__(self, pages: Sequence[_Page]) -> None:
        self._pages = pages
        self._frequency = Counter(word for page in pages for word in page.words)
        self._forms: dict[str, list[str]] = {}
        for word in self._frequency:
            self._forms.setdefault(_root(word), []).append(word)

    def forms(self, word: str) -> list[str]:
        """The word and its other forms, without those of one document only or of more than half of them."""
        return [form for form in self._forms[_root(word)] if 2 <= self._frequency[form] <= len(self._pages) / 2]

    def relevant(self, roots: frozenset[str]) -> frozenset[str]:
        return frozenset(page.doc_id for page in self._pages if roots <= page.roots and _answers(page.text, roots))


def _page(doc_id: str, title: str, document: Document) -> _Page:
    above = {title, document.title, *(heading for section in document.sections for heading in section.headings)}
    headings = frozenset(tuple(_words(heading)) for heading in above)
    sentences = (one for part in document.sections for one in _prose(document.text[part.start : part.end]))
    running = [*_words(document.text), *(word for heading in sorted(headings) for word in heading)]
    return _Page(
        doc_id=doc_id,
        text=document.text,
        running=f" {' '.join(running)} ",
        words=frozenset(running),
        roots=frozenset(map(_root, running)),
        titled=frozenset(_root(word) for heading in headings for word in heading),
        candidates=tuple(dict.fromkeys(one for one in sentences if _may_be_asked(_words(one), headings))),
    )


def _may_be_asked(words: list[str], headings: frozenset[tuple[str, ...]]) -> bool:
    return len(words) in SENTENCE_WORDS and tuple(words) not in headings


def _question(page: _Page, sample: _Sample, seed: str) -> Question | None:
    """From the first of the document's sentences, in the order of their hashes, that allows one."""
    candidates = sorted(page.candidates, key=lambda text: digest(seed, page.doc_id, *_words(text)))
    for sentence in candidates[:SENTENCES_TRIED]:
        shown = _chosen(sentence, page, sample, seed)
        text = _ordered(shown, _words(sentence), page, seed)
        if len(shown) < QUESTION_WORDS[0] or text is None:
            continue
        roots = frozenset(map(_root, shown))
        relevant = sample.relevant(roots) | {page.doc_id}
        if len(relevant) <= MOST_RELEVANT:
            return Question(id=_id(text, relevant), text=text, relevant=relevant, made_from=page.doc_id, roots=roots)
    return None


def _chosen(sentence: str, page: _Page, sample: _Sample, seed: str) -> dict[str, str]:
    """Content words by hash, one of a root and at most one of the title: the form that is shown -> the sentence's."""

    def drawn(word: str) -> str:
        return digest(seed, page.doc_id, word)

    shown: dict[str, str] = {}
    roots: set[str] = set()
    for word in sorted(set(_content_words(sentence)), key=drawn):
        root, forms = _root(word), sample.forms(word)
        others = sorted((form for form in forms if form not in page.words), key=drawn)
        form = others[0] if others else word
        if root in roots or form not in forms or (root in page.titled and roots & page.titled):
            continue
        roots.add(root)
        shown[form] = word
    return dict(list(shown.items())[: QUESTION_WORDS[-1]])


def _ordered(shown: Mapping[str, str], spoken: list[str], page: _Page, seed: str) -> str | None:
    """The words in an order that is not the sentence's and holds no three in a row of the document."""
    said = sorted(shown, key=lambda form: spoken.index(shown[form]))
    for attempt in range(ORDERS_TRIED):
        order = sorted(shown, key=partial(digest, seed, page.doc_id, str(attempt)))
        runs = (f" {' '.join(run)} " for run in zip(order, order[1:], order[2:], strict=False))
        if order != said and not any(run in page.running for run in runs):
            return " ".join(order)
    return None


def _id(text: str, relevant: frozenset[str]) -> str:
    return digest(text, *sorted(relevant))[:16]


def _answers(text: str, roots: frozenset[str]) -> bool:
    """Whether a sentence of the text, of whatever kind, holds all the words in any form."""
    return any(roots <= set(map(_root, _words(sentence))) for block in _blocks(text) for sentence in _sentences(block))


_WORD = re.compile(r"\w+")
_IDENTIFIER = re.compile(r"[a-z][A-Z]|[\d_]")
_PIECE = re.compile(r"[^\s()\[\]{}<>,;:!?\"“”]+")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~).*?(?:^[ \t]*(?:```|~~~)[ \t]*$|\Z)", re.DOTALL | re.MULTILINE)
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+", re.MULTILINE)
_BLOCK_END = re.compile(r"\n[ \t]*\n")
_NO_PROSE = re.compile(r"^(?:#|\||>|\.\. |:\w|\$|\t| {4}|[=~^*+_-]{3})|\|", re.MULTILINE)
"""What marks a line of a heading, table, quotation, directive, field list, shell example, or indented code."""
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]\u201d]*\s+(?=[^\sa-z])")
_ENDS = (".", "!", "?")
_CUT_SHORT = ("e.g.", "i.e.", "etc.", "vs.", "cf.")


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _root(word: str) -> str:
    """The word without an English ending; of other languages' words mostly the word itself."""
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and not word.endswith("ss") and len(word) - len(ending) >= (3 if ending == "s" else 4):
            return word[: -len(ending)]
    return word


def _content_words(sentence: str) -> Iterator[str]:
    """Words of letters that carry meaning; neither identifiers nor paths, which only those know who read the text."""
    for piece in _PIECE.findall(sentence.replace("`", " ")):
        bare = piece.strip(".'’*")
        if _IDENTIFIER.search(bare) or "." in bare or "/" in bare or "'" in bare or "’" in bare:
            continue
        yield from (word for word in _words(bare) if len(word) > 2 and word.isalpha() and word not in STOP_WORDS)


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs and list items."""
    for paragraph in _BLOCK_END.split(text):
        yield from _LIST_ITEM.split(paragraph)


def _sentences(block: str) -> list[str]:
    return _SENTENCE_END.split(" ".join(block.split()))


def _prose(text: str) -> Iterator[str]:
    """The whole sentences of running text."""
    for block in _blocks(_FENCE.sub("\n\n", text)):
        if _NO_PROSE.search(block):
            continue
        for sentence in _sentences(block):
            begins = sentence[:1].isalnum() and not sentence[0].islower()
            if begins and sentence.endswith(_ENDS) and not sentence.endswith(_CUT_SHORT):
                yield sentence


STOP_WORDS = frozenset(
    "about above according actually after again against all also although always among and another any anything are "
    "around because been before being below between both but can cannot could did does doing done down during each "
    "either else etc even every everything except few following for from further get gets given gives got had has have "
    "having hence her here his how however into its itself just let like made make makes making many may might more "
    "most much must need needed needs neither never nor not now off often once one only onto other others our out over "
    "own per perhaps please rather really same see several shall she should since some something still such than that "
    "the their them then there therefore these they thing things this those though through thus too toward two under "
    "unless until upon use used uses using usually very via want was way ways well were what whatever when where "
    "whether which while who whom whose why will with within without would yet you your".split()
)
"""English words that say little about a subject. In other languages such words are left out as the commonest."""
