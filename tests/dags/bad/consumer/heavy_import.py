"""Planted: loads a banned module at the top; a function that needs it imports it inside."""

import pyarrow

VERSION = pyarrow.__version__
