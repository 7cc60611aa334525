"""Planted: burns CPU while it is parsed."""

import time

while time.process_time() < 1.5:
    sum(range(10_000))
