"""What curation keeps: thresholds with their reasons, and the digest that names what they make of a corpus."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from include.documents.reader import Limits
from include.storage import digest

CURATION = 1
"""Raise it with every change that makes another corpus of the same documents and settings."""
ANY = "any"
"""In place of languages: all of them, and none is detected."""

Share = Annotated[float, Field(ge=0, le=1)]


class CurationConfig(BaseModel):
    """Plain values only, so that tasks can hand it on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_characters: int = Field(default=200, ge=1)
    """Of a text after it was normalised. Shorter ones are stubs that teach little but their template."""
    max_characters: int = Field(default=1_000_000, ge=1)
    """Longer ones are dumps more often than texts. Gopher's limit is 100,000 words, some 600,000 characters."""
    languages: tuple[str, ...] = ("en",)
    """Codes of ISO 639 that the detector knows; `any` alone turns the filter off."""
    min_language_score: Share = 0.25
    """Of the detector, from 0 to 1: below it the text is of no language, or of several. Prose has 0.8 and more,
    documentation full of names 0.4 and more, random letters 0.2 and less in 99 of 100 cases."""
    min_alphabetic_share: Share = 0.6
    """Of characters that are no blank, letters and marks: tables of numbers and dumps have fewer, code 0.7 and more.
    (Gopher counts words with a letter, 80 %; by characters a word such as `0x7f3a` does not pass for language.)"""
    max_duplicate_line_share: Share = 0.7
    """Of lines that are not blank, those that stood above already. Gopher's limit is 0.3 on the Web; reference
    documentation repeats the same parameters to 0.6."""
    max_mean_word: float = Field(default=20, gt=0)
    """Characters of the mean word between blanks, of texts in ASCII, in which languages without blanks cannot be
    written. Gopher's limit is 10 on the Web; identifiers and addresses of technical text need more, base64 has 64."""
    evaluation_sets: tuple[str, ...] = ()
    """URIs of JSON lines files; a document that shares 13 words in a row with a text of theirs is left out."""
    min_near_duplicate: float = Field(default=0.8, gt=0, le=1)
    """Estimated Jaccard similarity of their 5-word shingles from which two texts are near duplicates."""
    held_out_share: float = Field(default=0.05, ge=0, le=0.5)
    """Of each source's documents; one at least of a source that has HELD_OUT_FROM of them."""
    max_held_out_bytes: int = Field(default=2_000_000, ge=0)
    """Of text in UTF-8, in all, divided evenly among the sources: what every evaluation during training reads."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Which documents are held out."""
    document_seconds: float = Field(default=60, gt=0)
    """Of processor time that reading one document may take."""
    document_memory_mb: int = Field(default=768, ge=128)

    @field_validator("languages")
    @classmethod
    def _are_codes(cls, languages: tuple[str, ...]) -> tuple[str, ...]:
        if not languages or not all(one.isascii() and one.isalpha() and one.islower() for one in languages):
            raise ValueError(f"{list(languages)} must be codes such as en or de, or {ANY} alone")
        if ANY in languages and len(languages) > 1:
            raise ValueError(f"{list(languages)}: {ANY} stands alone")
        return languages

    @model_validator(mode="after")
    def _fits_together(self) -> CurationConfig:
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters={self.min_characters} is more than max_characters={self.max_characters}")
        return self

    @property
    def limits(self) -> Limits:
        """What reading one document may cost."""
        return Limits(seconds=self.document_seconds, memory_mb=self.document_memory_mb)


def curation_digest(listing: str, config: CurationConfig, evaluation: str) -> str:
    """Names what curation makes: of the digests of listing and evaluation sets' n-grams, and all settings.

    Where evaluation sets lie does not matter, what they hold does.
    """
    settings = config.model_dump_json(exclude={"evaluation_sets"})
    return digest("curation", str(CURATION), listing, settings, evaluation)
