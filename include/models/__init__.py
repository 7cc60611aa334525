"""Talking to models: embedders, chat, and the metering of every call."""
