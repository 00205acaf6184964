"""What the bank and the merchants send in the same history: statements of our accounts, and evidence for disputes.

The bank books every paid payout on its day, returns those that fail afterwards, takes a fee and gives interest once a
month. A few payouts it books a day late, with another amount, or not at all: what a reconciliation has to find.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from psycopg import Connection
from pymongo.database import Database

from payments.settings import settings
from payments.simulation.camt053 import statement_xml
from payments.simulation.ids import hashes
from payments.simulation.names import Names
from payments.simulation.plan import DAY, SECOND
from payments.simulation.treasury import PAYOUT_FAILURES
from payments.simulation.world import MONIES
from payments.systems.documents.evidence import COLLECTION as EVIDENCE
from payments.systems.documents.evidence import (
    KINDS,
    ErasedCustomerError,
    Evidence,
    store_evidence,
)
from payments.systems.documents.statements import COLLECTION as STATEMENTS
from payments.systems.documents.statements import ENTRIES_A_PAGE, Entry, Statement, StatementFile, store_statements
from payments.vault import KeyRing

COLLECTIONS = (STATEMENTS, EVIDENCE)
_MOST_FILES, _MOST_EVIDENCE = 200, 40
_PLANTED = 3
_FEE_MINOR, _INTEREST_MINOR = 1_900, 740
# Reasons for a return, in the order of PAYOUT_FAILURES (ISO 20022 external codes).
_REASONS = dict(zip(PAYOUT_FAILURES, ("AC04", "AC06", "MS03", "AC01"), strict=True))


@dataclass(frozen=True)
class _Payout:
    """A payout that the bank was told of; ``failed_on`` when it came back after it was paid."""

    payout_id: str
    amount_minor: int
    money: int
    paid_on: date | None
    failed_on: date | None
    failure: str | None


class Bank:
    """All statements and evidence of a history: the same from the same seed."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._plan = names.business.plan

    def counts(self) -> dict[str, int]:
        """Return how many documents each collection gets."""
        pages = sum(max(1, -(-len(statement.entries) // ENTRIES_A_PAGE)) for _, statement in self.statements)
        return {STATEMENTS: pages, EVIDENCE: len(self.evidence)}

    @cached_property
    def statements(self) -> list[tuple[int, Statement]]:
        """The statements with the place of their currency in MONIES, in order of time within a currency."""
        return [(money, statement) for money in self._monies for statement in self._of_currency(money)]

    def file(self, money: int, statement: Statement) -> StatementFile:
        """Return a statement as the bank sends it, in the morning after its last day."""
        sent_at = datetime.combine(statement.period_end_on + timedelta(days=1), datetime.min.time(), UTC).replace(
            hour=6
        )
        account = self._account(money)
        content = statement_xml(account, [statement], sent_at, MONIES[money].exponent)
        return StatementFile(account, (statement,), content, sent_at)

    @cached_property
    def evidence(self) -> list[Evidence]:
        """What merchants hand in for some of the disputes that were open: small PDF and PNG files."""
        names, disputes = self._names, self._names.business.disputes
        count = len(disputes.charge)
        rows = np.sort(names.streams.stream("evidence").permutation(count)[:_MOST_EVIDENCE])
        merchants = names.merchant_ids.to_pylist()
        of_row = names.business.sales.merchant[disputes.charge[rows]].tolist()
        ids, created = names.spaces["dp"].strings(rows), disputes.created[rows].tolist()
        return [
            Evidence(
                merchant_id=merchants[merchant],
                dispute_id=dispute_id,
                kind=KINDS[place % len(KINDS)],
                content=pdf_of(f"Evidence for {dispute_id}") if place % 2 else png_of(dispute_id.encode()),
                uploaded_at=datetime.fromtimestamp((moment + 2 * DAY) // SECOND, UTC),
                uploaded_by="merchant",
            )
            for place, (merchant, dispute_id, moment) in enumerate(zip(of_row, ids, created, strict=True))
        ]

    @cached_property
    def _payouts(self) -> list[_Payout]:
        payouts = self._names.business.treasury.payouts
        rows = np.flatnonzero((payouts.paid >= 0) | ((payouts.in_transit >= 0) & (payouts.failed < 0)))
        columns = (payouts.amount, payouts.money, payouts.paid, payouts.failed, payouts.failure)
        return [
            _Payout(
                payout_id,
                amount,
                money,
                None if paid < 0 else _day(paid),
                None if failed < 0 else _day(failed),
                None if failure < 0 else PAYOUT_FAILURES[failure],
            )
            for payout_id, amount, money, paid, failed, failure in zip(
                self._names.spaces["po"].strings(rows), *(column[rows].tolist() for column in columns), strict=True
            )
        ]

    @cached_property
    def _monies(self) -> list[int]:
        return sorted({payout.money for payout in self._payouts})

    @cached_property
    def _planted(self) -> dict[str, str]:
        """What the bank gets wrong: missing, other_amount or late, by payout."""
        plain = [
            payout.payout_id
            for payout in self._payouts
            if payout.paid_on is not None and payout.failed_on is None and payout.paid_on < self._plan.end
        ]
        chosen = self._names.streams.stream("bank").permutation(len(plain)).tolist()
        each = min(_PLANTED, len(plain) // 6)
        faults = ("missing", "other_amount", "late")
        return {plain[row]: faults[place // each] for place, row in enumerate(chosen[: 3 * each])}

    def _of_currency(self, money: int) -> list[Statement]:
        currency, entries = MONIES[money].code, self._entries(money)
        # Money lies ready for all that leaves the account.
        balance: int = sum(entry.amount_minor for entry in entries if entry.direction == "debit")
        statements = []
        for first in range(0, self._plan.days, self._days_a_statement):
            start = self._plan.start + timedelta(days=first)
            end = min(start + timedelta(days=self._days_a_statement - 1), self._plan.end)
            inside = [entry for entry in entries if entry.booked_on is not None and start <= entry.booked_on <= end]
            numbered = tuple(
                replace(entry, entry_ref=f"{currency}{start:%y%m%d}-{number:05d}")
                for number, entry in enumerate(inside, start=1)
            )
            closing = balance + sum(entry.signed_minor for entry in inside if entry.status == "booked")
            statements.append(
                Statement(f"{currency}-{start}", currency, balance, closing, start, end, numbered),
            )
            balance = closing
        return statements

    @property
    def _days_a_statement(self) -> int:
        """One day, or as many weeks as it takes to stay below the most files."""
        days = 1
        while len(self._monies) * -(-self._plan.days // days) > _MOST_FILES:
            days = 7 if days == 1 else days + 7
        return days

    def _entries(self, money: int) -> list[Entry]:
        """Return what happens on an account, in order of days."""
        currency, end = MONIES[money].code, self._plan.end
        found = []
        for payout in self._payouts:
            if payout.money != money:
                continue
            fault = self._planted.get(payout.payout_id)
            if payout.paid_on is None:
                under_way = _entry(payout.amount_minor, currency, "debit", end, payout.payout_id)
                found.append(replace(under_way, status="pending"))
                continue
            if fault == "missing":
                continue
            amount = payout.amount_minor + 1 if fault == "other_amount" else payout.amount_minor
            on = payout.paid_on + timedelta(days=1) if fault == "late" else payout.paid_on
            found.append(_entry(amount, currency, "debit", on, payout.payout_id))
            if payout.failed_on is not None and payout.failure is not None:
                back = _entry(payout.amount_minor, currency, "credit", payout.failed_on, payout.payout_id)
                found.append(replace(back, is_reversal=True, reason_code=_REASONS[payout.failure]))
        last_of_month = [
            day
            for day in (self._plan.start + timedelta(days=number) for number in range(self._plan.days))
            if (day + timedelta(days=1)).day == 1
        ]
        for day in last_of_month:
            found += [
                _entry(_FEE_MINOR, currency, "debit", day, None),
                _entry(_INTEREST_MINOR, currency, "credit", day, None),
            ]
        return sorted(found, key=lambda entry: (entry.booked_on or end, entry.payout_id or "", entry.direction))

    def _account(self, money: int) -> str:
        """Return the IBAN of the account in a currency, with its check digits (ISO 13616)."""
        number = int(hashes(self._plan.seed, "bank account", np.array([money]))[0]) % 10**18
        check = 98 - int(f"{number:018d}131400") % 97  # D is 13, E is 14
        return f"DE{check:02d}{number:018d}"


def write_bank(
    store: Database[dict[str, Any]], connection: Connection, bank: Bank, advance: Callable[[str, int, int], None]
) -> dict[str, int]:
    """Write the statements and the evidence that are not there yet; returns how many documents of each were written.

    Files of a customer who was erased are not written again.
    """
    ring = KeyRing.load_or_create(settings().key_ring_path)
    written = {STATEMENTS: 0, EVIDENCE: 0}
    for money, statement in bank.statements:
        written[STATEMENTS] += store_statements(store, connection, ring, bank.file(money, statement))
        advance(STATEMENTS, 1, len(bank.statements))
    for evidence in bank.evidence:
        try:
            written[EVIDENCE] += store_evidence(store, connection, ring, evidence)
        except ErasedCustomerError:
            continue
        finally:
            advance(EVIDENCE, 1, len(bank.evidence))
    return written


def _day(moment: int) -> date:
    return datetime.fromtimestamp(moment // SECOND, UTC).date()


def _entry(amount_minor: int, currency: str, direction: str, on: date, payout_id: str | None) -> Entry:
    return Entry(None, amount_minor, currency, direction, "booked", on, on, payout_id)


def pdf_of(text: str) -> bytes:
    """Return a page that shows a line of text."""
    shown = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>\nstream\n%s\nendstream" % (len(shown), shown),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    content, places = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        places.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    return b"%sxref\n0 %d\n0000000000 65535 f \n%strailer\n<</Size %d/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % (
        content,
        size,
        table,
        size,
        len(content),
    )


def png_of(pixels: bytes) -> bytes:
    """Return a grey picture of one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", len(pixels), 1, 8, 0, 0, 0, 0)
    row = zlib.compress(b"\0" + pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")
