"""Planted: reaches for the network while it is parsed; the caller swallows the error."""

import socket

try:
    socket.create_connection(("127.0.0.1", 9), timeout=1)
except OSError:
    pass
