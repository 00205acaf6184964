"""Screening of text for card numbers: issuer prefix, length and boundary first, then the Luhn sum.

Pure functions. Prefixes and lengths are those of the ISO/IEC 7812 ranges that the card schemes publish; the check
digit is the one of ISO/IEC 7812-1 annex B (Luhn). A number is found whole or with single spaces or hyphens between its
digits.
"""

import json
import re
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Span:
    """A card number in a text: ``text[start:end]`` holds its digits and separators."""

    start: int
    end: int
    brand: str


class _Range(NamedTuple):
    brand: str
    first: int
    last: int
    lengths: tuple[int, ...]


_RANGES = (
    _Range("visa", 4, 4, (13, 16, 19)),
    _Range("mastercard", 51, 55, (16,)),
    _Range("mastercard", 2221, 2720, (16,)),
    _Range("amex", 34, 34, (15,)),
    _Range("amex", 37, 37, (15,)),
    _Range("discover", 6011, 6011, (16,)),
    _Range("discover", 644, 649, (16,)),
    _Range("discover", 65, 65, (16,)),
    _Range("jcb", 3528, 3589, (16,)),
    _Range("unionpay", 62, 62, (16, 17, 18, 19)),
    _Range("diners", 30, 30, (14,)),
    _Range("diners", 36, 36, (14,)),
    _Range("diners", 38, 38, (14,)),
)

PREFILTER = (
    r"(?:^|[^0-9A-Za-z]|\\[bfnrt]|\\u[0-9A-Fa-f]{4})"  # a JSON escape ends a word although it ends in a letter
    r"[2-6](?:[ -]?[0-9]){12,18}(?:[^0-9A-Za-z]|$)"
)
"""A regular expression (RE2 and Python) that matches every text in which :func:`find_card_numbers` finds something.

It matches more than that: it is for engines that screen many rows and hand the few candidates over.
"""

_RUN = re.compile(r"[0-9](?:[ -]?[0-9]){12,}")
_UUID = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![0-9A-Za-z])")
_ESCAPE_BEFORE = re.compile(r"(?:\\[bfnrt]|\\u[0-9A-Fa-f]{4})\Z")
_ESCAPED = re.compile(r"\\u(00(?:3[0-9]|20|2[dD]))")  # a digit or a separator, escaped as in JSON
_WORD = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_KEPT = 4


def luhn(digits: str) -> bool:
    """Return whether the last digit is the check digit of the digits before it."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        total += _DOUBLED[int(digit)] if place % 2 else int(digit)
    return total % 10 == 0


def find_card_numbers(text: str) -> list[Span]:
    """Return the card numbers in a text, from left to right, without overlaps.

    A number starts and ends at a boundary (no letter or digit beside it). What stands inside a UUID is none.
    """
    spans: list[Span] = []
    uuids = [match.span() for match in _UUID.finditer(text)]
    for run in _RUN.finditer(text):
        places = [place for place in range(run.start(), run.end()) if text[place] not in " -"]
        digits = "".join(text[place] for place in places)
        index = 0
        while index < len(places):
            found = _card_at(text, places, digits, index)
            if found is None or any(start <= found.start and found.end <= end for start, end in uuids):
                index += 1
                continue
            spans.append(found)
            while index < len(places) and places[index] < found.end:
                index += 1
    return spans


def redact(text: str) -> str:
    """Return the text with every card number masked but for its last four digits."""
    while spans := find_card_numbers(text):
        pieces: list[str] = []
        done = 0
        for span in spans:
            pieces += [text[done : span.start], _mask(text[span.start : span.end])]
            done = span.end
        # What is left may complete a number with the digits after it, so the result is looked at again.
        text = "".join([*pieces, text[done:]])
    return text


def redact_record(text: str) -> str:
    """Return a record (JSON text, or text that is no JSON) with every card number in its keys and values masked.

    JSON is decoded first, so that a number hidden by escapes is found; a record without one comes back as it is.
    """
    try:
        value = json.loads(text)
        clean = _redact_value(value)
    except (ValueError, RecursionError):
        plain = _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
        return redact(plain) if find_card_numbers(plain) else text
    return redact(text) if clean == value else redact(json.dumps(clean, ensure_ascii=False, separators=(",", ":")))


def _redact_value(value: object) -> object:
    match value:
        case str():
            return redact(value)
        case bool():
            return value
        case int() | float():
            return redact(str(value)) if find_card_numbers(str(value)) else value
        case dict():
            return {redact(str(key)): _redact_value(item) for key, item in value.items()}
        case list():
            return [_redact_value(item) for item in value]
        case _:
            return value


def _card_at(text: str, places: list[int], digits: str, index: int) -> Span | None:
    start = places[index]
    if not _is_start(text, start):
        return None
    # The longest reading first: more digits are masked.
    for length, brand in sorted(_readings(digits[index : index + 4]), reverse=True):
        if index + length > len(places):
            continue
        end = places[index + length - 1] + 1
        if (end == len(text) or text[end] not in _WORD) and luhn(digits[index : index + length]):
            return Span(start, end, brand)
    return None


def _is_start(text: str, start: int) -> bool:
    if start == 0 or text[start - 1] not in _WORD:
        return True
    return _ESCAPE_BEFORE.search(text[max(0, start - 6) : start]) is not None


def _readings(prefix: str) -> list[tuple[int, str]]:
    return [
        (length, card.brand)
        for card in _RANGES
        if card.first <= int(prefix[: len(str(card.first))]) <= card.last
        for length in card.lengths
    ]


def _mask(number: str) -> str:
    hidden = sum(character in "0123456789" for character in number) - _KEPT
    masked: list[str] = []
    for character in number:
        if character in "0123456789" and hidden > 0:
            masked.append("*")
            hidden -= 1
        else:
            masked.append(character)
    return "".join(masked)
