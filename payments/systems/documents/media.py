"""Whether a file is what it says: a whole PDF, PNG or JPEG, and nothing else besides. Pure functions.

Structure only: pictures are not decoded, and neither EXIF nor active content of a PDF is taken out. A card number that
is shown in a picture or a text layer cannot be found here; the file is encrypted and never lands.
"""

import re
import zlib

from payments.errors import UsageError

PDF, PNG, JPEG = "application/pdf", "image/png", "image/jpeg"
_PNG_MAGIC, _JPEG_MAGIC = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_PDF_HEADER = re.compile(rb"%PDF-[12]\.[0-9]")
_PDF_END = re.compile(rb"startxref\s+([0-9]{1,10})\s+%%EOF\s*\Z")
_PDF_TABLE = re.compile(rb"xref\s|[0-9]+\s+[0-9]+\s+obj\b")
_TAIL = 1_024
_ZIP_END, _ZIP_REACH = b"PK\x05\x06", 65_557  # where an archive reader looks for the end of an archive
_PDF_REACH = 1_024  # where a lenient PDF reader looks for a header
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})
_EOI, _SOS = 0xD9, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def media_type_of(content: bytes, declared: str | None = None) -> str:
    """Return the media type of a whole file.

    Args:
        content: the bytes of the file.
        declared: the media type that somebody says it has.

    Raises:
        UsageError: empty, cut off, of another type than declared, of no allowed type, or of two types at once.
    """
    if not content:
        raise UsageError("The file is empty: check how it was saved.")
    if content.startswith(b"%PDF-"):
        found, fault = PDF, _pdf_fault(content)
    elif content.startswith(_PNG_MAGIC):
        found, fault = PNG, _png_fault(content)
    elif content.startswith(_JPEG_MAGIC):
        found, fault = JPEG, _jpeg_fault(content)
    else:
        raise UsageError(f"The file is none of {PDF}, {PNG}, {JPEG}: convert it to one of them.")
    if declared is not None and declared != found:
        raise UsageError(f"The file is {found}, not {declared} as declared: correct the type or the file.")
    if fault is not None:
        raise UsageError(f"The file is no whole {found} ({fault}): save it again.")
    if _ZIP_END in content[-_ZIP_REACH:]:
        raise UsageError(f"The file is {found} and an archive at once: save it again without the archive.")
    if found != PDF and b"%PDF-" in content[:_PDF_REACH]:
        raise UsageError(f"The file is {found} and {PDF} at once: save it again as one of them.")
    return found


def _pdf_fault(content: bytes) -> str | None:
    if _PDF_HEADER.match(content) is None:
        return "it has no version"
    end = _PDF_END.search(content[-_TAIL:])
    if end is None:
        return "it does not end with %%EOF"
    if _PDF_TABLE.match(content, int(end[1])) is None:
        return "its table of objects is not where the end says"
    return None


def _png_fault(content: bytes) -> str | None:
    at, kinds = len(_PNG_MAGIC), []
    while at < len(content):
        size, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 12 + size
        if end > len(content):
            return "it is cut off"
        if zlib.crc32(content[at + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            return "a checksum is wrong"
        kinds.append(kind)
        at = end
        if kind == b"IEND":
            break
    if not kinds or kinds[0] != b"IHDR" or b"IDAT" not in kinds:
        return "it holds no picture"
    if kinds[-1] != b"IEND":
        return "it is cut off"
    return "something follows its end" if at < len(content) else None


def _jpeg_fault(content: bytes) -> str | None:
    at, has_frame, has_scan = 2, False, False
    while True:
        marker = _marker_at(content, at)
        if marker is None:
            return "it is cut off"
        code, at = marker
        if code == _EOI:
            break
        if code in _STANDALONE:
            continue
        size = int.from_bytes(content[at : at + 2], "big")
        if size < 2 or at + size > len(content):
            return "it is cut off"
        at += size
        has_frame |= code in _FRAMES
        if code == _SOS:
            has_scan = True
            at = _end_of_scan(content, at)
    if not (has_frame and has_scan):
        return "it holds no picture"
    return "something follows its end" if at < len(content) else None


def _marker_at(content: bytes, at: int) -> tuple[int, int] | None:
    """Return the code of the marker at a place and the place after it; any number of 0xFF may stand before the code."""
    if content[at : at + 1] != b"\xff":
        return None
    while content[at : at + 1] == b"\xff":
        at += 1
    return (content[at], at + 1) if at < len(content) else None


def _end_of_scan(content: bytes, at: int) -> int:
    """Return where the compressed data ends: at the next marker that is neither a stuffed byte nor a restart."""
    while True:
        at = content.find(b"\xff", at)
        if at < 0 or at + 1 >= len(content):
            return len(content)
        if content[at + 1] != 0 and content[at + 1] not in _STANDALONE and content[at + 1] != 0xFF:
            return at
        at += 1 if content[at + 1] == 0xFF else 2
