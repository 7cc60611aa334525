"""Planted: reads a file while it is parsed."""

from pathlib import Path

PROMPT = Path("/etc/hostname").read_text()
