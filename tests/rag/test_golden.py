"""Made questions keep the rule's promises on any sample; a file of people's questions is read or refused in a line."""

from __future__ import annotations

import itertools
import json
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.documents.document import Document, Section
from include.errors import UserError
from include.rag.golden import (
    MOST_RELEVANT,
    QUESTION_WORDS,
    STOP_WORDS,
    Question,
    make_questions,
    pooled,
    read_questions,
)

VOCABULARY = [
    *("bridge", "bridges", "river", "rivers", "stone", "paint", "painted", "painting", "winter", "summer", "garden"),
    *("gardens", "market", "markets", "engine", "engines", "letter", "letters", "window", "window", "carpet", "silver"),
    *("copper", "forest", "forests", "harbour", "lantern", "lanterns", "mirror", "basket", "the", "of", "with", "and"),
]
Sample = list[tuple[str, str, Document]]


def document(body: str, *, heading: str = "Part", title: str = "Title") -> Document:
    sections = (Section(start=0, end=len(body), headings=(heading,)),) if body.strip() else ()
    return Document(title=title, text=body, sections=sections)


def corpus(count: int, seed: int = 1) -> Sample:
    """Documents of 72 words each, drawn from 540 words of which a third are plurals of another third."""
    generator = random.Random(seed)
    stems = ["".join(parts) for parts in itertools.product("bdfgk", "aei", "lmnr", ("and", "ost", "urk"))]
    vocabulary = [stem + ending for stem in stems for ending in ("", "s", "or")]
    made = []
    for number in range(count):
        sentences = [" ".join(generator.choices(vocabulary, k=12)).capitalize() + "." for _ in range(6)]
        heading, title = generator.choice(vocabulary), " ".join(generator.sample(vocabulary, 2))
        made.append((f"doc{number}", title, document(" ".join(sentences), heading=heading, title=title)))
    return made


words = st.sampled_from(VOCABULARY)
sentences = st.lists(words, min_size=6, max_size=20).map(lambda found: " ".join(found).capitalize() + ".")
bodies = st.lists(sentences, min_size=1, max_size=5).map(" ".join)
samples = st.lists(st.tuples(bodies, words, words), min_size=2, max_size=12).map(
    lambda parts: [
        (f"doc{number}", title, document(body, heading=heading, title=title))
        for number, (body, heading, title) in enumerate(parts)
    ]
)


def tokens(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())


def promises_kept(sample: Sample) -> int:
    """Check every question that a sample gives; how many there are."""
    by_id = {doc_id: (title, doc) for doc_id, title, doc in sample}
    held = {doc_id: set(tokens(f"{title} {doc.text}")) | above(doc) for doc_id, (title, doc) in by_id.items()}
    made = make_questions(sample)
    for question in made:
        assert question.made_from in question.relevant
        assert len(question.relevant) <= MOST_RELEVANT
        asked = question.text.split()
        assert len(asked) in QUESTION_WORDS
        assert len(set(asked)) == len(asked)
        assert not STOP_WORDS & set(asked)
        assert all(2 <= sum(word in words for words in held.values()) <= len(sample) / 2 for word in asked)
        title, source = by_id[question.made_from]
        assert len(set(asked) & (set(tokens(title)) | above(source))) <= 1
        said = f" {' '.join(tokens(source.text))} "
        assert not any(f" {' '.join(run)} " in said for run in zip(asked, asked[1:], asked[2:], strict=False))
    return len(made)


@settings(deadline=None, max_examples=60)
@given(samples)
def test_every_question_keeps_the_promises_of_the_rule(sample: Sample) -> None:
    assert promises_kept(sample) <= len(sample)


@pytest.mark.parametrize("seed", range(5))
def test_so_do_those_of_a_larger_sample_and_most_documents_give_one(seed: int) -> None:
    assert promises_kept(corpus(40, seed)) > 30


def above(source: Document) -> set[str]:
    return {word for section in source.sections for heading in section.headings for word in tokens(heading)}


@settings(deadline=None, max_examples=30)
@given(samples, st.randoms(use_true_random=False))
def test_the_same_documents_in_any_order_give_the_same_questions(sample: Sample, order: random.Random) -> None:
    shuffled = list(sample)
    order.shuffle(shuffled)
    assert make_questions(sample) == make_questions(shuffled)


def test_documents_that_share_no_word_leave_the_questions_as_they_are() -> None:
    sample = corpus(40)
    body = "Qwe rtz uio pas dfg hjk lyx cvb nma."
    foreign = [(f"foreign{n}", "Xyz", document(body, heading="Abc")) for n in range(2)]
    before = {question.made_from: question for question in make_questions(sample)}
    after = {question.made_from: question for question in make_questions([*sample, *foreign])}
    assert len(before) > 20
    assert {key: after[key] for key in before} == before


def test_limit_and_seed_choose_among_the_documents() -> None:
    sample = corpus(40)
    every = make_questions(sample, limit=1000)
    assert make_questions(sample, limit=7) == every[:7]
    assert {question.text for question in every} != {q.text for q in make_questions(sample, seed="other")}
    assert len({question.id for question in every}) == len(every)


SENTENCE = "Silver lanterns above the harbour were painted again before every winter market."
BESIDE = (
    "Lantern and harbour. Silver. Winters long. Paint the wall. Markets open.",
    "Lantern, harbours. Silver winter. Painted door. Markets close.",
    "Nothing of this kind at all is written here, where others speak of engines.",
    "Rivers and forests are what this one is about, with stone and copper besides.",
    "Gardens, windows, carpets.",
    "Letters, mirrors, baskets.",
)


def beside() -> Sample:
    return [(f"beside{n}", "Other", document(text, heading="Other")) for n, text in enumerate(BESIDE)]


def test_a_copy_of_the_sentence_is_relevant_too_and_a_word_takes_another_form() -> None:
    copies = [(f"copy{n}", "Some", document(f"Intro {n}. {SENTENCE} More.")) for n in range(2)]
    made = make_questions([*copies, *beside()])
    assert {question.made_from for question in made} <= {"copy0", "copy1"}
    assert made
    for question in made:
        assert question.relevant == {"copy0", "copy1"}
        assert set(question.text.split()) - set(tokens(SENTENCE))


@pytest.mark.parametrize("seed", "abcdefgh")
def test_the_words_do_not_come_in_the_order_of_the_sentence(seed: str) -> None:
    (question,) = make_questions([("one", "Some", document(SENTENCE)), *beside()], seed=seed)
    place = {word[:5]: number for number, word in enumerate(tokens(SENTENCE))}
    places = [place[word[:5]] for word in question.text.split()]
    assert places != sorted(places)


def test_a_sentence_that_many_documents_hold_gives_no_question() -> None:
    copies = [(f"copy{n}", "Some", document(SENTENCE)) for n in range(MOST_RELEVANT + 1)]
    assert make_questions([*copies, *beside()]) == []
    assert make_questions([*copies[:-1], *beside()]) != []


@pytest.mark.parametrize(
    "body",
    [
        f"```\n{SENTENCE}\n```",
        f"    {SENTENCE}",
        f"# {SENTENCE}",
        f"| {SENTENCE} | x |",
        f":param x: {SENTENCE}",
        f".. note:: {SENTENCE}",
        f"> {SENTENCE}",
        SENTENCE.rstrip("."),
        "",
        "   \n",
        " ".join([SENTENCE.rstrip(".")] * 5) + ".",
    ],
)
def test_code_headings_tables_and_what_is_no_sentence_give_no_question(body: str) -> None:
    assert [q for q in make_questions([("one", "Some", document(body)), *beside()]) if q.made_from == "one"] == []


@pytest.mark.parametrize("body", [SENTENCE, f"- {SENTENCE}", f"1. {SENTENCE}", SENTENCE.replace(" the ", "\nthe ")])
def test_running_text_and_list_items_give_one(body: str) -> None:
    assert [q.made_from for q in make_questions([("one", "Some", document(body)), *beside()])] == ["one"]


def test_a_sentence_that_is_its_document_s_title_gives_no_question() -> None:
    assert make_questions([("one", SENTENCE, document(SENTENCE)), *beside()]) == []


def test_identifiers_numbers_and_paths_are_not_asked_for() -> None:
    body = "Set `max_lanterns` and winterMarket or a/silver harbour.painted path to 16 before any market opens."
    copies = [(f"copy{n}", "Some", document(body)) for n in range(2)]
    for question in make_questions([*copies, *beside()]):
        assert not {"max_lanterns", "wintermarket", "16", "silver", "painted"} & set(question.text.split())


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_small_corpus_gives_few_or_none(count: int) -> None:
    assert len(make_questions(corpus(count))) <= count


def test_a_script_without_spaces_gives_none() -> None:
    text = "\u6211\u4eec\u5728\u6865\u4e0a\u770b\u6cb3\u3002" * 20
    assert make_questions([(f"d{n}", "t", document(text)) for n in range(6)]) == []


def test_pooling_adds_the_documents_that_answer_by_the_same_rule() -> None:
    (question,) = make_questions([("one", "Some", document(SENTENCE)), *beside()])
    found = {question.id: [("far", f"Before. {SENTENCE} After."), ("near", "Silver lanterns. In winter markets.")]}
    assert pooled([question], found)[0].relevant == {"one", "far"}
    assert pooled([question], {}) == [question]
    assert pooled([question], found)[0].id == question.id
    asked = Question(id="q", text=SENTENCE, relevant=frozenset({"one"}))
    assert pooled([asked], {"q": [("far", SENTENCE)]}) == [asked]


def test_questions_of_people_are_read_by_path() -> None:
    lines = ['{"question": " How many\\nworkers? ", "relevant": ["a.md", "b/c.md"]}', "", "  \n"]
    (question,) = read_questions(lines, str.upper)
    assert (question.text, question.relevant) == ("How many workers?", {"A.MD", "B/C.MD"})
    assert question.made_from is None
    (again,) = read_questions(lines[:1], str.upper)
    assert again.id == question.id


GOOD = '{"question": "a", "relevant": ["p"]}'


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[]", "line 2: list where an object is expected"),
        ('{"relevant": ["p"]}', "line 2: question=None must be a text"),
        ('{"question": " ", "relevant": ["p"]}', "line 2: question=' ' must be a text"),
        ('{"question": 3, "relevant": ["p"]}', "line 2: question=3 must be"),
        ('{"question": "a"}', "line 2: relevant=None must be a list of at least one path"),
        ('{"question": "a", "relevant": []}', r"line 2: relevant=\[\] must be"),
        ('{"question": "a", "relevant": "p"}', "line 2: relevant='p' must be"),
        ('{"question": "a", "relevant": ["p", ""]}', "line 2: relevant="),
        ('{"question": "a", "relevant": ["p"], "k": 1}', "line 2: field 'k' is not known; allowed: question, relevant"),
        ('{"question": "\\ud800", "relevant": ["p"]}', "line 2: half of a surrogate pair"),
        (GOOD, "line 2: asked already, on an earlier line: 'a'"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_allowed(line: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        read_questions([GOOD, line], str)
    assert "\n" not in str(caught.value)


def test_a_file_without_a_question_is_refused() -> None:
    with pytest.raises(UserError, match="the file holds none"):
        read_questions(["", " "], str)


@given(st.text(), st.lists(st.text()))
def test_any_json_is_read_or_refused(text: str, paths: list[str]) -> None:
    try:
        (question,) = read_questions([json.dumps({"question": text, "relevant": paths})], str)
    except UserError:
        assert not text.strip() or not paths or not all(paths)
    else:
        assert question.relevant == set(paths)
