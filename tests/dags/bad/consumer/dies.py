"""Planted: kills the process that parses it."""

import os

os._exit(3)
