"""Mail: what was written, after its headers, and the attachments that can be read."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from include.documents.document import Document, Reject
from include.documents.loaders.common import Builder, declared, decode
from include.documents.loaders.html import load_html
from include.errors import DocumentError

if TYPE_CHECKING:
    from email.message import EmailMessage

_HEADERS = ("From", "To", "Date", "Subject")
_ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")


def load_mail(data: bytes, stem: str) -> Document:
    """The headers, then the text (of several kinds the plain one), then each attachment with a suffix that can be read,
    under its name; other attachments, and mails within the mail, are only named.

    An attachment that cannot be read is a Reject. DocumentError if the mail has none of its headers or is encrypted.
    """
    from email import message_from_bytes, policy

    message: Any = message_from_bytes(data, policy=policy.default)
    headers = {name: " ".join(str(message[name]).split()) for name in _HEADERS if message[name]}
    if not headers:
        raise DocumentError(f"not a mail: none of the headers {', '.join(_HEADERS)}")
    if message.get_content_type() in _ENCRYPTED:
        if message.get_param("smime-type") == "signed-data":
            raise DocumentError("mail whose text lies within its signature", "unsupported")
        raise DocumentError("encrypted mail", "encrypted")
    attached = list(message.iter_attachments()) if message.is_multipart() else []
    names = [_name(part, number) for number, part in enumerate(attached, start=1)]
    builder = Builder()
    lines = [f"{name}: {value}" for name, value in headers.items()]
    builder.add("\n".join([*lines, *([f"Attachments: {', '.join(names)}"] if names else [])]))
    _add_body(builder, message, stem)
    for name, part in zip(names, attached, strict=True):
        _add_attachment(builder, name, part)
    return builder.build(headers.get("Subject") or stem)


def _add_body(builder: Builder, message: EmailMessage, stem: str) -> None:
    body: Any = message.get_body(preferencelist=("plain", "html"))
    if body is None:
        return
    text = _decoded(body, body.get_payload(decode=True) or b"")
    if body.get_content_type() != "text/html":
        builder.add(text)
        return
    page = load_html(text.encode("utf-8-sig"), stem)
    for section in page.sections:
        builder.add(page.text[section.start : section.end], headings=section.headings)


def _decoded(part: EmailMessage, payload: bytes) -> str:
    charset = part.get_content_charset()
    # What is labelled ASCII, as is what has no label, and is not, is UTF-8 in today's mail.
    return decode(payload, declared(None if charset == "us-ascii" else charset))


def _name(part: EmailMessage, number: int) -> str:
    """The attachment's name, without what would make it a path; of one without a name its number."""
    given = " ".join((part.get_filename() or "").split())
    suffix = {"text/plain": ".txt", "text/html": ".html"}.get(part.get_content_type(), "")
    return PurePosixPath(given.replace("\\", "/")).name or f"part {number}{suffix}"


def _add_attachment(builder: Builder, name: str, part: EmailMessage) -> None:
    from include.documents import loaders

    suffix = PurePosixPath(name).suffix.lower()
    payload = part.get_payload(decode=True)
    if suffix not in loaders.SUFFIXES or suffix == ".eml" or not isinstance(payload, bytes):
        return
    try:
        if part.get_content_maintype() == "text":
            payload = _decoded(part, payload).encode("utf-8-sig")
        builder.include(loaders.load(payload, name), name)
    except DocumentError as error:
        builder.rejects.append(Reject(locator=name, reason=str(error)))
