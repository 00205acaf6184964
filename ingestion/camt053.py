"""Reading bank statements in XML (ISO 20022 camt.053) without trust, as a stream.

A document type, an entity, an external reference, too much depth, too many elements or too many bytes end the reading
where they stand. What is read is checked to the minor unit: the opening balance and the booked entries make the closing
balance.
"""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date
from functools import cache
from xml.etree.ElementTree import Element, ParseError, TreeBuilder

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import DefusedXMLParser

from ingestion.files import CURRENCIES
from payments.errors import UsageError
from payments.systems.documents.definitions import CARD_LIKE
from payments.systems.documents.statements import LARGEST_MINOR, Entry, Statement
from payments.vault import KeyRing, bank_reference_token

DEEPEST, MOST_ELEMENTS = 32, 2_000_000
_ROOT = re.compile(r"\{urn:iso:std:iso:20022:tech:xsd:camt\.053\.001\.(?:0[2-9]|[1-9][0-9])\}Document")
_STATEMENT_DEPTH, _ENTRY_DEPTH = 3, 4
_AMOUNT = re.compile(r"([0-9]{1,20})(?:\.([0-9]{0,20}))?")
_REFERENCE = re.compile(r"[0-9A-Za-z._/-]{1,35}")
_CARD_LIKE = re.compile(CARD_LIKE)
_PAYOUT = re.compile(r"po_[0-9A-Za-z]+")
_REASON = re.compile(r"[0-9A-Za-z]{1,35}")
_DIRECTIONS = {"CRDT": "credit", "DBIT": "debit"}
_STATUSES = {"BOOK": "booked", "PDNG": "pending"}


class StatementError(UsageError):
    """A statement file that is refused: rule and reason."""

    def __init__(self, rule: str, reason: str) -> None:
        super().__init__(reason)
        self.rule = rule


def parse_statements(chunks: Iterable[bytes], ring: KeyRing, most_bytes: int) -> tuple[str, tuple[Statement, ...]]:
    """Return the account of a camt.053 file and its statements.

    Args:
        chunks: the bytes of the file, piece by piece; nothing is asked for after the piece that is refused.
        ring: what stands in for a reference that may not be kept as it is (a number long enough for a card).
        most_bytes: the largest file.

    Raises:
        StatementError: the file is no camt.053 statement of one account, is not safe to read, or does not add up.
    """
    reader = _Reader(ring)
    parser = DefusedXMLParser(target=reader, forbid_dtd=True)
    size = 0
    try:
        for chunk in chunks:
            size += len(chunk)
            if size > most_bytes:
                raise StatementError("too_large", f"it has more than {most_bytes:,} bytes: ask for a shorter period")
            parser.feed(chunk)
        parser.close()
    except DefusedXmlException as error:
        raise StatementError(
            "unsafe_xml", "it declares a document type, an entity or an external reference: ask the bank for plain XML"
        ) from error
    except ParseError as error:
        line, column = error.position
        raise StatementError(
            "broken_xml", f"the XML is cut off or broken at line {line}, column {column}: fetch the file again"
        ) from error
    except (LookupError, ValueError) as error:
        raise StatementError("broken_xml", "the XML is in no encoding that can be read: ask for UTF-8") from error
    if not reader.statements:
        raise StatementError("no_statement", "it holds no statement: fetch the file again")
    if len(set(reader.accounts)) > 1:
        raise StatementError("several_accounts", "it holds statements of several accounts: ask for a file each")
    if len({statement.statement_id for statement in reader.statements}) < len(reader.statements):
        raise StatementError("repeated_statement", "it holds one statement twice: fetch the file again")
    return reader.accounts[0], tuple(reader.statements)


class _Reader(TreeBuilder):
    """Builds one entry at a time and keeps what it says; counts depth and elements as they come."""

    def __init__(self, ring: KeyRing) -> None:
        super().__init__()
        self.accounts: list[str] = []
        self.statements: list[Statement] = []
        self._ring = ring
        self._entries: list[Entry] = []
        self._depth = self._elements = 0
        self._space = ""

    def start(self, tag: str, attributes: dict[str, str], /) -> Element:
        """Count an element and refuse it where it cannot stand."""
        self._depth += 1
        self._elements += 1
        if self._depth == 1:
            if _ROOT.fullmatch(tag) is None:
                raise StatementError("not_camt053", "it is no camt.053.001 document of version 02 or later")
            self._space = tag.removesuffix("Document")
        if self._depth > DEEPEST:
            raise StatementError("too_deep", f"its elements stand more than {DEEPEST} deep: no bank writes so")
        if self._elements > MOST_ELEMENTS:
            raise StatementError("too_many_elements", f"it has more than {MOST_ELEMENTS:,} elements: ask for less")
        return super().start(tag, attributes)

    def end(self, tag: str, /) -> Element:
        """Close an element; of an entry and a statement only what they say is kept."""
        element = super().end(tag)
        if self._depth == _ENTRY_DEPTH and tag == f"{self._space}Ntry":
            self._entries += _entries(_Node(element, self._space), self._ring)
            element.clear()
        if self._depth == _STATEMENT_DEPTH:
            node = _Node(element, self._space)
            if tag == f"{self._space}GrpHdr":
                _refuse_part(node, "MsgPgntn")
            if tag == f"{self._space}Stmt":
                self.accounts.append(_account(node))
                self.statements.append(_statement(node, tuple(self._entries), self._ring))
                self._entries = []
                element.clear()
        self._depth -= 1
        return element


@dataclass(frozen=True)
class _Node:
    """An element and the namespace of its document; paths are local names joined by a slash."""

    element: Element
    space: str

    def all(self, path: str) -> list["_Node"]:
        found = self.element.findall("/".join(f"{self.space}{name}" for name in path.split("/")))
        return [replace(self, element=element) for element in found]

    def text(self, *paths: str) -> str | None:
        """Return the text at the first path that has one."""
        for path in paths:
            for node in self.all(path):
                if text := (node.element.text or "").strip():
                    return text
        return None

    def needed(self, *paths: str) -> str:
        text = self.text(*paths)
        if text is None:
            raise StatementError("missing_value", f"{paths[0]} is missing: ask the bank for a complete statement")
        return text


def _account(statement: _Node) -> str:
    return statement.needed("Acct/Id/IBAN", "Acct/Id/Othr/Id")


def _statement(node: _Node, entries: tuple[Entry, ...], ring: KeyRing) -> Statement:
    _refuse_part(node, "StmtPgntn")
    opening, closing = _balance(node, "OPBD", "PRCD"), _balance(node, "CLBD")
    currency = opening.currency
    named = {closing.currency, *(entry.currency for entry in entries), node.text("Acct/Ccy") or currency}
    if named != {currency}:
        raise StatementError("mixed_currencies", "it names several currencies for one account: fetch the file again")
    booked = sum(entry.signed_minor for entry in entries if entry.status == "booked")
    if opening.signed_minor + booked != closing.signed_minor:
        raise StatementError(
            "wrong_sum",
            f"the opening balance and the entries make {opening.signed_minor + booked} minor units, "
            f"not {closing.signed_minor} as it says: ask the bank for a complete statement",
        )
    return Statement(
        statement_id=_reference(node.needed("Id"), ring),
        currency=currency,
        opening_balance_minor=opening.signed_minor,
        closing_balance_minor=closing.signed_minor,
        period_start_on=_day(node.text("FrToDt/FrDtTm")) or opening.day,
        period_end_on=_day(node.text("FrToDt/ToDtTm")) or closing.day,
        entries=entries,
    )


def _refuse_part(node: _Node, pagination: str) -> None:
    for page in node.all(pagination):
        if page.text("PgNb") != "1" or page.text("LastPgInd") not in {"true", "1"}:
            raise StatementError("part_of_statement", "it is one part of a statement: ask the bank for it in one file")


@dataclass(frozen=True)
class _Balance:
    signed_minor: int
    currency: str
    day: date


def _balance(statement: _Node, *codes: str) -> _Balance:
    for code in codes:
        for node in statement.all("Bal"):
            if node.text("Tp/CdOrPrtry/Cd") == code:
                minor, currency = _money(node)
                day = _day(node.needed("Dt/Dt", "Dt/DtTm"))
                if day is None:
                    raise AssertionError("a needed text has a day")
                return _Balance(minor if _direction(node) == "credit" else -minor, currency, day)
    raise StatementError("missing_balance", f"it has no balance {codes[0]}: ask the bank for a complete statement")


def _entries(node: _Node, ring: KeyRing) -> list[Entry]:
    """Return an entry, or the parts of a batch when the bank gives each of them with its amount."""
    status = node.needed("Sts/Cd", "Sts")
    if status not in _STATUSES:
        raise StatementError("unknown_status", f"an entry has a status that is none of {', '.join(_STATUSES)}")
    minor, currency = _money(node)
    booked_on, value_on = (_day(node.text(f"{name}/Dt", f"{name}/DtTm")) for name in ("BookgDt", "ValDt"))
    if status == "BOOK" and (booked_on or value_on) is None:
        raise StatementError("missing_value", "a booked entry has no day: ask the bank for a complete statement")
    reference = node.text("NtryRef", "AcctSvcrRef")
    whole = Entry(
        entry_ref=None if reference is None else _reference(reference, ring),
        amount_minor=minor,
        currency=currency,
        direction=_direction(node),
        status=_STATUSES[status],
        booked_on=booked_on or value_on,
        value_on=value_on,
        is_reversal=node.text("RvslInd") in {"true", "1"},
    )
    details = node.all("NtryDtls/TxDtls")
    if len(details) < 2:
        return [_detailed(whole, detail) for detail in details] or [whole]
    parts = [_part(whole, detail) for detail in details]
    if sum(part.signed_minor for part in parts) != whole.signed_minor:
        raise StatementError("wrong_sum", "the parts of a batch do not make its amount: ask for a complete statement")
    return parts


def _part(whole: Entry, detail: _Node) -> Entry:
    priced = detail if detail.all("Amt") else next(iter(detail.all("AmtDtls/TxAmt")), detail)
    minor, currency = _money(priced)
    direction = _direction(detail) if detail.text("CdtDbtInd") else whole.direction
    return _detailed(replace(whole, amount_minor=minor, currency=currency, direction=direction), detail)


def _detailed(entry: Entry, detail: _Node) -> Entry:
    """Return an entry with what its details say: our payout, and why money came back."""
    end_to_end, reason = detail.text("Refs/EndToEndId"), detail.text("RtrInf/Rsn/Cd", "RtrInf/Rsn/Prtry")
    return replace(
        entry,
        payout_id=end_to_end if end_to_end and _PAYOUT.fullmatch(end_to_end) else None,
        reason_code=reason if reason and _REASON.fullmatch(reason) else None,
    )


def _direction(node: _Node) -> str:
    direction = node.needed("CdtDbtInd")
    if direction not in _DIRECTIONS:
        raise StatementError("wrong_value", "CdtDbtInd is neither CRDT nor DBIT: fetch the file again")
    return _DIRECTIONS[direction]


def _money(node: _Node) -> tuple[int, str]:
    """Return the amount of a balance or entry in minor units, and its currency."""
    text = node.needed("Amt")
    currency = next((amount.element.get("Ccy", "") for amount in node.all("Amt")), "")
    if currency not in _exponents():
        raise StatementError("unknown_currency", "an amount has no currency that ISO 4217 knows: fetch the file again")
    return minor_units(text, currency), currency


def minor_units(text: str, currency: str) -> int:
    """Return a decimal amount as minor units, by its digits; zeros at the end of the decimals do not count.

    Raises:
        StatementError: no plain amount, more decimals than the currency has, or more than can be kept.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise StatementError("wrong_amount", f"an amount is no plain decimal number ({text[:30]!r})")
    exponent, decimals = _exponents()[currency], (match[2] or "").rstrip("0")
    if len(decimals) > exponent:
        raise StatementError(
            "too_many_decimals", f"{currency} has {exponent} decimals, but an amount has {len(decimals)}"
        )
    minor = int(match[1] + decimals.ljust(exponent, "0"))
    if minor > LARGEST_MINOR:
        raise StatementError("too_large_amount", f"an amount is larger than {LARGEST_MINOR:,} minor units")
    return minor


@cache
def _exponents() -> dict[str, int]:
    with CURRENCIES.open(encoding="utf-8", newline="") as file:
        return {row["currency"]: int(row["exponent"]) for row in csv.DictReader(file)}


def _day(text: str | None) -> date | None:
    """Return the day of an ISO date or moment as the bank wrote it, in the bank's own time zone."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise StatementError("wrong_value", f"a day is no ISO 8601 date ({text[:30]!r})") from None


def _reference(text: str, ring: KeyRing) -> str:
    """Return a reference of the bank, or a token in its place: as long a number as a card's may not be kept."""
    is_plain = _REFERENCE.fullmatch(text) is not None and _CARD_LIKE.search(text) is None
    return text if is_plain else bank_reference_token(ring, text)
