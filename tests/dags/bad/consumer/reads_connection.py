"""Planted: asks for a Connection while it is parsed, through a hook."""

from airflow.sdk import BaseHook

try:
    HOST = BaseHook.get_connection("opensearch").host
except Exception:
    HOST = "localhost"
