"""Dispute evidence in the document store: what is known of a file, and the file itself, encrypted.

The file is encrypted under the key of the customer who disputes, as the vault of the operational store holds it: an
erasure of that person makes it unreadable.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from payments.errors import UsageError
from payments.settings import settings
from payments.systems.documents.files import Store, StoredFile
from payments.systems.documents.media import media_type_of
from payments.vault import KeyRing, decrypt_bytes, encrypt_bytes, unwrap

COLLECTION, BUCKET = "dispute_evidence", "evidence"
KINDS = ("receipt", "customer_communication", "shipping_documentation", "refund_policy", "other")
SCHEMA_VERSION = 1


class ErasedCustomerError(UsageError):
    """The customer who disputes was erased, and with them the key of their files."""


@dataclass(frozen=True)
class Evidence:
    """A file that is handed in for a dispute; ``media_type`` is what its sender says, None when nothing is said."""

    merchant_id: str
    dispute_id: str
    kind: str
    content: bytes
    uploaded_at: datetime
    uploaded_by: str = "operator"
    media_type: str | None = None

    @property
    def sha256(self) -> str:
        """The digest of the content."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def file_id(self) -> str:
        """The id of the file and of its document: the dispute and the content."""
        return f"{self.dispute_id}:{self.sha256}"


def store_evidence(store: Store, connection: Connection, ring: KeyRing, evidence: Evidence) -> bool:
    """Store a file and then what is known of it; the same file for the same dispute again changes nothing.

    Args:
        store: the document store.
        connection: the operational store, which knows the dispute and keeps the customer's key.
        ring: what unwraps that key.
        evidence: what is handed in.

    Returns:
        Whether it had to be stored.

    Raises:
        ErasedCustomerError: there is no key any more.
        UsageError: an unknown dispute or kind, too large a file, or one that is not what it says.
    """
    if evidence.kind not in KINDS:
        raise UsageError(f"There is no kind {evidence.kind}: give one of {', '.join(KINDS)}.")
    most = settings().content_max_bytes
    if len(evidence.content) > most:
        raise UsageError(f"The file has {len(evidence.content):,} bytes, more than {most:,}: make it smaller.")
    media_type = media_type_of(evidence.content, evidence.media_type)
    file_id = evidence.file_id
    if store[COLLECTION].find_one({"_id": file_id}, {"_id": 1}) is not None:
        return False
    version, subject_id, data_key = _dispute(connection, ring, evidence)

    def sealed() -> tuple[bytes, dict[str, Any]]:
        return encrypt_bytes(data_key, evidence.content, file_id), {"subject_id": str(subject_id)}

    StoredFile(store, BUCKET, file_id).put(
        connection, sealed, lambda content, _: decrypt_bytes(data_key, content, file_id)
    )
    document = {
        "dispute_id": evidence.dispute_id,
        "dispute_version": version,
        "merchant_id": evidence.merchant_id,
        "kind": evidence.kind,
        "media_type": media_type,
        "size_bytes": len(evidence.content),
        "sha256": evidence.sha256,
        "file_id": file_id,
        "uploaded_at": evidence.uploaded_at,
        "uploaded_by": evidence.uploaded_by,
        "schema_version": SCHEMA_VERSION,
        "written_at": datetime.now(UTC),
    }
    # An upsert: of two who hand in the same at once, the second finds it there.
    done = store[COLLECTION].update_one({"_id": file_id}, {"$setOnInsert": document}, upsert=True)
    return done.upserted_id is not None


def read_evidence(store: Store, connection: Connection, ring: KeyRing, file_id: str) -> bytes:
    """Return a file as it was handed in.

    Raises:
        UsageError: there is no such file, it is not whole, its customer was erased, or its content is another.
        payments.vault.DecryptionError: it was altered, or the key ring is another one.
    """
    content, note = StoredFile(store, BUCKET, file_id).read()
    subject_id = UUID(note["subject_id"])
    row = connection.execute("select wrapped_key from vault.subjects where subject_id = %s", (subject_id,)).fetchone()
    plain = decrypt_bytes(_unwrapped(ring, subject_id, None if row is None else row[0]), content, file_id)
    if hashlib.sha256(plain).hexdigest() != file_id.rpartition(":")[2]:
        raise UsageError(f"The content of {file_id} is not what was handed in: restore it from a backup.")
    return plain


def _dispute(connection: Connection, ring: KeyRing, evidence: Evidence) -> tuple[int, UUID, bytes]:
    """Return the version of a dispute's row, and subject and data key of the customer who disputes."""
    row = connection.execute(
        """
        select d.version, s.subject_id, s.wrapped_key
        from core.disputes as d
        inner join core.charges as c on d.merchant_id = c.merchant_id and d.charge_id = c.charge_id
        inner join identity.customers as i on c.merchant_id = i.merchant_id and c.customer_id = i.customer_id
        inner join vault.subjects as s on i.subject_id = s.subject_id
        where d.merchant_id = %s and d.dispute_id = %s
        """,
        (evidence.merchant_id, evidence.dispute_id),
    ).fetchone()
    if row is None:
        raise UsageError(f"Merchant {evidence.merchant_id} has no dispute {evidence.dispute_id}: check both ids.")
    version, subject_id, wrapped = row
    return version, subject_id, _unwrapped(ring, subject_id, wrapped)


def _unwrapped(ring: KeyRing, subject_id: UUID, wrapped: bytes | None) -> bytes:
    if wrapped is None:
        raise ErasedCustomerError("The customer of this dispute was erased: files of theirs are neither kept nor read.")
    return unwrap(ring, bytes(wrapped), subject_id)
