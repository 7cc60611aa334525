"""Planted: asks for a Variable while it is parsed, and hides that it cannot."""

from airflow.sdk import Variable

try:
    SOURCE = Variable.get("source")
except Exception:
    SOURCE = "unknown"
