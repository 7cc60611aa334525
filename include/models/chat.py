"""Chat models behind any OpenAI-compatible server, every call metered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.config import Settings
from include.errors import UserError
from include.models.metering import Meter

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model wrote, and what it used."""

    text: str
    tokens_in: int
    tokens_out: int


def chat(messages: list[tuple[str, str]], *, settings: Settings, meter: Meter) -> Answer:
    """Ask the configured model; `messages` are (role, text) pairs with the roles system, user, assistant.

    Raises UserError if no model is configured, ConnectionError if the server cannot be reached or refuses; a failed
    call is metered as well.
    """
    import openai

    if not settings.chat_url or not settings.chat_model:
        raise UserError("no chat model is set: set FMOPS_CHAT_URL and FMOPS_CHAT_MODEL")
    started = time.monotonic()
    try:
        reply = _model(settings).invoke(messages)
    except openai.OpenAIError as error:
        meter.record(
            kind="chat", model=settings.chat_model, status="error", latency_ms=_since(started),
            error=type(error).__name__,
        )  # fmt: skip
        raise ConnectionError(f"chat model {settings.chat_model} at {settings.chat_url}: {error}") from error
    usage: dict[str, Any] = dict(reply.usage_metadata or {})
    answer = Answer(
        text=str(reply.content),
        tokens_in=usage.get("input_tokens", 0),
        tokens_out=usage.get("output_tokens", 0),
    )
    meter.record(
        kind="chat",
        model=settings.chat_model,
        status="ok",
        latency_ms=_since(started),
        tokens_in=answer.tokens_in,
        tokens_out=answer.tokens_out,
        tokens_cached=(usage.get("input_token_details") or {}).get("cache_read") or 0,
        tokens_exact=bool(usage),
    )
    return answer


def _model(settings: Settings) -> ChatOpenAI:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(
        base_url=settings.chat_url,
        model=settings.chat_model,
        api_key=settings.chat_api_key,
        timeout=settings.chat_timeout_s,
        temperature=0.0,
        max_retries=2,
    )


def _since(started: float) -> float:
    return (time.monotonic() - started) * 1000
