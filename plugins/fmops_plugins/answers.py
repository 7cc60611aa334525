"""What the pages answer with: headers, and why there is nothing to show."""

from __future__ import annotations

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


class PageError(Exception):
    """Why there is nothing to show, in a sentence for the page, and the HTTP status that says the same."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
