"""Planted: runs a program while it is parsed."""

import subprocess

VERSION = subprocess.run(["git", "--version"], capture_output=True, text=True).stdout
