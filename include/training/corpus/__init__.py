"""Curation of a corpus: listed, read, filtered, kept apart from evaluation sets, deduplicated, split, reported."""
