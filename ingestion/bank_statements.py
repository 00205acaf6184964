"""Bank statements into the document store; a file that is refused goes to quarantine with rule and reason.

Quarantine holds the digest and size of a refused file only: its content and its name may hold account numbers.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ingestion.camt053 import StatementError, parse_statements
from ingestion.contracts import Entity, entities
from ingestion.documents import SOURCE, document_batch
from ingestion.landing import Landing, Staged, open_items
from ingestion.raw_zone import text_literal
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.documents.client import database
from payments.systems.documents.statements import (
    COLLECTION,
    ChangedStatementError,
    StatementFile,
    store_statements,
)
from payments.systems.oltp.connection import connect
from payments.vault import KeyRing

_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Added:
    """What was taken from one file: pages written, and the statements and entries it holds."""

    file: Path
    statements: int
    entries: int
    new_pages: int


@dataclass(frozen=True)
class Refused:
    """A file that was refused, and why; it stands in quarantine."""

    file: Path
    rule: str
    reason: str


def add_statements(files: Sequence[Path]) -> tuple[list[Added], list[Refused]]:
    """Put statement files into the document store, each whole or not at all; the same file again changes nothing.

    Returns:
        What was added, and what was refused and put into quarantine.

    Raises:
        UsageError: a file cannot be read, or a store cannot be reached.
    """
    if absent := [str(file) for file in files if not file.is_file()]:
        raise UsageError(f"There is no file {absent[0]}: check the path.")
    added: list[Added] = []
    refused: list[Refused] = []
    for file in files:
        try:
            added.append(_add(file))
        except StatementError as error:
            refused.append(Refused(file, error.rule, str(error)))
        except ChangedStatementError as error:
            refused.append(Refused(file, "changed_statement", str(error)))
    for one in refused:
        _quarantine(one.file, one)
    for done in added:
        _settle(done.file)
    return added, refused


def _add(file: Path) -> Added:
    ring = KeyRing.load_or_create(settings().key_ring_path)
    original = bytearray()
    account, statements = parse_statements(_kept(_chunks(file), original), ring, settings().content_max_bytes)
    received = StatementFile(account, statements, bytes(original), datetime.now(UTC))
    with connect() as connection:
        pages = store_statements(database(), connection, ring, received)
    return Added(file, len(statements), sum(len(statement.entries) for statement in statements), pages)


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            yield chunk


def _kept(chunks: Iterable[bytes], original: bytearray) -> Iterator[bytes]:
    """Pass chunks on and keep them: what is refused early was not read further."""
    for chunk in chunks:
        original += chunk
        yield chunk


def _quarantine(file: Path, refused: Refused) -> None:
    """Write down that a file was refused; the landing writer counts it as read and quarantined."""
    entity, sha256 = entities(SOURCE)[COLLECTION], _digest(file)
    record = json.dumps({"sha256": sha256, "size_bytes": file.stat().st_size}, separators=(",", ":"))
    with document_batch("file", _origin(sha256)) as batch:
        _land(batch, entity, (refused.rule, refused.reason, record))
        batch.commit()


def _settle(file: Path) -> None:
    """Settle what a file was refused for before: it fits now."""
    entity, origin = entities(SOURCE)[COLLECTION], _origin(_digest(file))
    with document_batch("file", origin) as batch:
        standing = open_items(batch.pin, SOURCE, COLLECTION)
        if standing is None:
            return
        found = batch.con.execute(f"select quarantine_id from ({standing}) where origin = ?", [origin]).fetchall()
        if found:
            _land(batch, entity, None, tuple(item for (item,) in found))
            batch.commit()


def _land(batch: Landing, entity: Entity, refused: tuple[str, str, str] | None, replays: tuple[str, ...] = ()) -> None:
    rule, reason, record = ("null",) * 3 if refused is None else map(text_literal, refused)
    nothing = ", ".join(f'cast(null as varchar) as "{name}"' for name in entity.column_names)
    batch.con.execute(
        f"""
        create or replace temp view staged as
        select 0::bigint as _ordinal, {nothing}, {rule} as _rule, {reason} as _reason, {record} as _record
        where {"false" if refused is None else "true"}
        """
    )
    batch.land(Staged(entity, "staged", replays=replays))


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _origin(sha256: str) -> str:
    return f"file:{sha256}"
