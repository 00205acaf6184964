"""Delimited text, split record by record: one bad line costs that line only, whatever stands in it.

RFC 4180, with any one-character delimiter and either line ending: a field may be quoted, a quoted field may hold
delimiters, line breaks and doubled quotes. A line that does not split (wrong number of fields, a quote that is never
closed) is handed on as it is, and reading goes on with the next line.
"""

import csv
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LONGEST_RECORD = 100
"""Lines that one quoted record may span; an opening quote that is not closed by then is a broken line."""

csv.field_size_limit(2**24)


@dataclass(frozen=True)
class Broken:
    """A line that is no record, with the reason."""

    line: str
    reason: str


def decoded(lines: Iterable[bytes]) -> Iterator[str | Broken]:
    """Yield the lines of a UTF-8 file without their ends; a blank line is skipped, one that is not UTF-8 is broken."""
    for number, raw in enumerate(lines):
        line = (raw.removeprefix(b"\xef\xbb\xbf") if number == 0 else raw).rstrip(b"\r\n")
        if not line.strip():
            continue
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            yield Broken(line.decode("utf-8", errors="replace"), "the line is not UTF-8")


def header_of(line: str) -> tuple[list[str], str]:
    """Return the column names of a header line and its delimiter: the commonest of comma, semicolon, tab and bar."""
    delimiter = max(",;\t|", key=line.count)
    return [name.strip() for name in next(csv.reader([line], delimiter=delimiter))], delimiter


def records(lines: Iterable[str | Broken], delimiter: str, width: int) -> Iterator[list[str] | Broken]:
    """Yield each record as its ``width`` fields, or the line that is none."""
    source = iter(lines)
    waiting: deque[str | Broken] = deque()
    while True:
        line = waiting.popleft() if waiting else next(source, None)
        if line is None:
            return
        if isinstance(line, Broken):
            yield line
        elif '"' not in line:
            fields = line.split(delimiter)
            yield fields if len(fields) == width else Broken(line, _wrong_width(len(fields), width))
        else:
            yield _quoted(line, source, waiting, delimiter, width)


def _quoted(
    line: str, source: Iterator[str | Broken], waiting: deque[str | Broken], delimiter: str, width: int
) -> list[str] | Broken:
    """Return the record that starts at a line with quotes; lines that turn out not to belong to it go to waiting."""
    joined = [line]
    while True:
        try:
            fields = next(csv.reader(["\n".join(joined)], delimiter=delimiter, strict=True))
        except csv.Error as error:
            is_open = "unexpected end of data" in str(error)
            reason = "a quote is never closed" if is_open or len(joined) > 1 else str(error)
        else:
            if len(fields) == width:
                return fields
            is_open, reason = False, _wrong_width(len(fields), width)
        more = (waiting.popleft() if waiting else next(source, None)) if is_open else None
        if more is not None and not isinstance(more, Broken) and len(joined) < LONGEST_RECORD:
            joined.append(more)
            continue
        waiting.extendleft(reversed([*joined[1:], *([more] if more is not None else [])]))
        return Broken(line, reason)


def _wrong_width(found: int, width: int) -> str:
    return f"the row has {found} fields, the header {width}"
