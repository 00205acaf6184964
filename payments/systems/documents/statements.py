"""Bank statements in the document store: the entries on pages, the file they came in encrypted beside them."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from psycopg import Connection
from pymongo import UpdateOne

from payments.errors import UsageError
from payments.systems.documents.files import Note, Store, StoredFile
from payments.vault import KeyRing, bank_account_token, decrypt_bytes, encrypt_bytes, new_data_key, unwrap, wrap

COLLECTION, BUCKET = "bank_statements", "originals"
ENTRIES_A_PAGE = 1_000
LARGEST_MINOR = 999_999_999_999
"""The most minor units of one amount or balance: a whole number of more digits could be a card number."""
SCHEMA_VERSION = 1
_CONTENT = ("currency", "opening_balance_minor", "closing_balance_minor", "period_start_on", "period_end_on", "entries")


class ChangedStatementError(UsageError):
    """A statement that is there already says something else now."""


@dataclass(frozen=True)
class Entry:
    """One movement that the bank names: ``amount_minor`` is never below zero, ``direction`` is credit or debit.

    ``status`` is booked or pending; ``payout_id`` is the end-to-end id when it is one of our payouts.
    """

    entry_ref: str | None
    amount_minor: int
    currency: str
    direction: str
    status: str
    booked_on: date | None
    value_on: date | None
    payout_id: str | None = None
    is_reversal: bool = False
    reason_code: str | None = None

    @property
    def signed_minor(self) -> int:
        """What the entry changes the balance of the account by."""
        return self.amount_minor if self.direction == "credit" else -self.amount_minor


@dataclass(frozen=True)
class Statement:
    """One statement of one account; balances are signed minor units, below zero when the account is overdrawn."""

    statement_id: str
    currency: str
    opening_balance_minor: int
    closing_balance_minor: int
    period_start_on: date
    period_end_on: date
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class StatementFile:
    """A file of statements of one account: its IBAN or other number in clear, what it says, its bytes, when it came."""

    account: str
    statements: tuple[Statement, ...]
    content: bytes
    received_at: datetime


def store_statements(store: Store, connection: Connection, ring: KeyRing, file: StatementFile) -> int:
    """Store the statements of one account and the file they came in; what is there already stays as it is.

    Args:
        store: the document store.
        connection: any connection to the operational store, for the lock of the file.
        ring: what makes the token of the account and wraps the key of the file.
        file: the file and what it says; the account is written nowhere in clear.

    Returns:
        How many pages had to be written.

    Raises:
        ChangedStatementError: a statement of that name is there with other content.
    """
    token, sha256 = bank_account_token(ring, file.account), hashlib.sha256(file.content).hexdigest()
    file_id = f"{token}:{sha256}"
    pages = [page for statement in file.statements for page in _pages(token, statement)]
    missing = [page for page in pages if not _is_there(store, page)]
    if not missing:
        return 0

    def sealed() -> tuple[bytes, dict[str, Any]]:
        # A key of its own, bound to the account: with the file goes the only copy of its key.
        data_key = new_data_key()
        note = {"account_token": token, "wrapped_key": wrap(ring, data_key, token)}
        return encrypt_bytes(data_key, file.content, file_id), note

    StoredFile(store, BUCKET, file_id).put(connection, sealed, lambda *found: _opened(ring, file_id, *found))
    written = {
        "file_id": file_id,
        "sha256": sha256,
        "received_at": file.received_at,
        "schema_version": SCHEMA_VERSION,
        "written_at": datetime.now(UTC),
    }
    inserts = [UpdateOne({"_id": page["_id"]}, {"$setOnInsert": page | written}, upsert=True) for page in missing]
    return store[COLLECTION].bulk_write(inserts, ordered=False).upserted_count


def read_original(store: Store, ring: KeyRing, file_id: str) -> bytes:
    """Return a statement's file as it came.

    Raises:
        UsageError: there is no such file, or it is not whole.
        payments.vault.DecryptionError: it was altered, or the key ring is another one.
    """
    return _opened(ring, file_id, *StoredFile(store, BUCKET, file_id).read())


def _opened(ring: KeyRing, file_id: str, content: bytes, note: Note) -> bytes:
    return decrypt_bytes(unwrap(ring, note["wrapped_key"], note["account_token"]), content, file_id)


def _pages(token: str, statement: Statement) -> Iterator[dict[str, Any]]:
    """Yield the pages of a statement: the fields that say what the bank said."""
    rows = [
        {
            **asdict(entry),
            "entry_no": number,
            "booked_on": None if entry.booked_on is None else entry.booked_on.isoformat(),
            "value_on": None if entry.value_on is None else entry.value_on.isoformat(),
        }
        for number, entry in enumerate(statement.entries, start=1)
    ]
    page_count = max(1, -(-len(rows) // ENTRIES_A_PAGE))
    for page in range(1, page_count + 1):
        yield {
            "_id": f"{token}:{statement.statement_id}:{page}",
            "statement_id": statement.statement_id,
            "account_token": token,
            "page": page,
            "page_count": page_count,
            "currency": statement.currency,
            "opening_balance_minor": statement.opening_balance_minor,
            "closing_balance_minor": statement.closing_balance_minor,
            "period_start_on": statement.period_start_on.isoformat(),
            "period_end_on": statement.period_end_on.isoformat(),
            "entry_count": len(rows),
            "entries": rows[(page - 1) * ENTRIES_A_PAGE : page * ENTRIES_A_PAGE],
        }


def _is_there(store: Store, page: dict[str, Any]) -> bool:
    found = store[COLLECTION].find_one({"_id": page["_id"]}, dict.fromkeys(_CONTENT, 1))
    if found is None:
        return False
    if any(found[name] != page[name] for name in _CONTENT):
        raise ChangedStatementError(
            f"statement {page['statement_id']} is there with other content: ask the bank for a new number, "
            "or remove the old one first."
        )
    return True
