"""Office files are ZIP archives of XML: what makes one unfit is found before a parser of the format sees it."""

from __future__ import annotations

import io
import re
import zipfile

from include.errors import DocumentError

MAX_UNPACKED_BYTES = 200_000_000
MAX_RATIO = 250
"""Of unpacked to packed size, once an archive unpacks to more than _SMALL_BYTES: text packs 3 to 20 times, repetitive
sheets 100 times, bombs 1000 times."""
_SMALL_BYTES = 20_000_000
MAX_MEMBERS = 10_000
_BINARY = re.compile(r"(?:^|/)(?:media|embeddings|fonts|printerSettings)/")
"""Folders of images, files within the file, fonts and printers' settings, which no loader reads. All else may be read
as XML, whatever its name."""
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def open_office(data: bytes) -> zipfile.ZipFile:
    """The opened archive; DocumentError if it is encrypted, torn, a bomb, or holds what Office files must not.

    Office Open XML forbids document type definitions (ECMA-376 part 2, 8.1.4), and with them go entities, whether they
    name a file or expand without end. What the archive's own reader raises of a torn one passes through.
    """
    if data.startswith(_OLE):
        if "EncryptedPackage".encode("utf-16-le") in data:
            raise DocumentError("encrypted with a password", "encrypted")
        raise DocumentError("an Office file of the kind before 2007, whatever its suffix says")
    archive = zipfile.ZipFile(io.BytesIO(data))
    _check_size(archive.infolist(), len(data))
    if "[Content_Types].xml" not in archive.namelist():
        raise DocumentError("a ZIP archive, but not an Office file")
    for member in archive.infolist():
        if not _BINARY.search(member.filename):
            _check_part(archive, member)
    return archive


def _check_size(members: list[zipfile.ZipInfo], packed: int) -> None:
    # ZipFile never reads more of a member than it declares, so that declared sizes bound what parsers unpack.
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_UNPACKED_BYTES:
        raise DocumentError(f"unpacks to {unpacked} bytes, at most {MAX_UNPACKED_BYTES} are read", "size_limit")
    if unpacked > _SMALL_BYTES and unpacked > MAX_RATIO * packed:
        raise DocumentError(f"unpacks to {unpacked // packed} times its size, at most {MAX_RATIO}", "size_limit")
    if len(members) > MAX_MEMBERS:
        raise DocumentError(f"has {len(members)} parts, at most {MAX_MEMBERS} are read", "size_limit")


def _check_part(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    if member.flag_bits & 1:
        raise DocumentError("encrypted with a password", "encrypted")
    # Without its zero bytes UTF-16 reads as ASCII. Other encodings are not allowed, so that none hides what follows.
    part = archive.read(member).replace(b"\0", b"")
    encoding = re.search(rb"""^[^>]{0,100}encoding\s*=\s*["']([^"'>]{0,40})""", part[:300])
    if encoding and encoding[1].lower() not in (b"utf-8", b"utf-16", b"us-ascii", b"ascii"):
        raise DocumentError(
            f"{member.filename} declares the encoding {encoding[1]!r}, Office files are UTF-8 or UTF-16"
        )
    if b"<!DOCTYPE" in part or b"<!ENTITY" in part:
        raise DocumentError(f"{member.filename} defines XML entities, which an Office file must not")
