"""Mail: headers, the written text, and attachments under their names."""

from __future__ import annotations

from email.message import EmailMessage

import pytest

from include.documents.document import Reject
from include.documents.loaders import load
from include.errors import DocumentError
from tests.documents.loaders.files import docx, paragraph, read


def mail(text: str = "Hello\nthere") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Zoë <z@example.org>", "a@example.org", "Grüße"
    message["Date"] = "Tue, 02 Jan 2024 03:04:05 +0000"
    message.set_content(text)
    return message


HEADERS = "From: Zoë <z@example.org>\nTo: a@example.org\nDate: Tue, 02 Jan 2024 03:04:05 +0000\nSubject: Grüße"


def test_a_mail_is_its_headers_and_its_text() -> None:
    assert load(mail().as_bytes(), "x.eml").title == "Grüße"
    assert read(mail().as_bytes(), "x.eml") == [((), HEADERS), ((), "Hello\nthere")]
    assert load(b"From: a@example.org\n\nhi", "x.eml").title == "x"


def test_of_plain_text_and_html_the_plain_text_is_read_and_html_alone_as_html() -> None:
    both = mail()
    both.add_alternative("<p>not this", subtype="html")
    assert [text for _, text in read(both.as_bytes(), "x.eml")] == [HEADERS, "Hello\nthere"]
    html = mail()
    html.set_content("<h1>Head</h1><p>caf\xe9<script>no</script>", subtype="html", charset="iso-8859-1")
    assert read(html.as_bytes(), "x.eml")[1:] == [(("Head",), "caf\xe9")]


def test_attachments_are_read_under_their_names_and_others_are_named() -> None:
    message = mail()
    message.add_attachment(
        docx(paragraph("Head", "heading1") + paragraph("in it")), "application", "docx", filename="a.docx"
    )
    message.add_attachment("caf\xe9", charset="iso-8859-1", filename="../b.txt")
    message.add_attachment(b"\0", "image", "png", filename="c.png")
    message.add_attachment(mail("inner"))
    message.add_attachment(mail("as a file").as_bytes(), "application", "octet-stream", filename="d.eml")
    message.add_attachment("no name", disposition="inline")
    document = load(message.as_bytes(), "x.eml")
    assert read(message.as_bytes(), "x.eml") == [
        ((), f"{HEADERS}\nAttachments: a.docx, b.txt, c.png, part 4, d.eml, part 6.txt"),
        ((), "Hello\nthere"),
        (("a.docx", "Head"), "in it"),
        (("b.txt",), "caf\xe9"),
        (("part 6.txt",), "no name"),
    ]
    assert document.rejects == ()


def test_a_bad_attachment_and_a_bad_record_of_one_are_set_aside() -> None:
    message = mail()
    message.add_attachment(b"garbage", "application", "pdf", filename="a.pdf")
    message.add_attachment(b'{"text": "fine"}\n[]', "application", "json", filename="b.jsonl")
    document = load(message.as_bytes(), "x.eml")
    assert document.text.endswith("there\n\nfine")
    [torn, record] = document.rejects
    assert torn.locator == "a.pdf"
    assert record == Reject(locator="b.jsonl: line 2", reason="list where an object was expected")


@pytest.mark.parametrize(
    ("data", "message", "fault"),
    [
        (b"just words\n", "not a mail", "malformed"),
        (b"\x80\x81\x82", "not a mail", "malformed"),
        (b"Subject: x\nContent-Type: multipart/encrypted; boundary=b\n\n--b--", "encrypted mail", "encrypted"),
        (b"Subject: x\nContent-Type: application/pkcs7-mime\n\nMII", "encrypted mail", "encrypted"),
        (
            b"Subject: x\nContent-Type: application/pkcs7-mime; smime-type=signed-data\n\nMII",
            "within its signature",
            "unsupported",
        ),
        (b"Subject: x\nContent-Type: text/plain; charset=utf-8\n\ncaf\xe9", "not utf-8: byte 0xe9", "not_text"),
        (b"Subject: x\nContent-Type: text/plain; charset=klingon\n\nx", "declares the encoding 'klingon'", "not_text"),
    ],
)
def test_what_is_no_readable_mail_is_refused(data: bytes, message: str, fault: str) -> None:
    with pytest.raises(DocumentError, match=message) as raised:
        load(data, "x.eml")
    assert raised.value.fault == fault


def test_mail_that_is_labelled_ascii_and_is_not_is_utf8() -> None:
    data = "Subject: x\nContent-Type: text/plain; charset=us-ascii\nContent-Transfer-Encoding: 8bit\n\ncafé".encode()
    assert read(data, "x.eml")[1] == ((), "café")
