"""Retrieval-augmented generation: documents become sections, chunks, vectors and, last, answers with their sources."""
