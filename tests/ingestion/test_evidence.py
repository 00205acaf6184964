"""Dispute evidence: only whole files of what they say they are, encrypted, kept once, readable until erasure."""

import os
import struct
import subprocess
import sys
import zlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pymongo.database import Database
from typer.testing import CliRunner

from ingestion.documents import land_documents
from payments.cli import app
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT, settings
from payments.simulation.bank import pdf_of, png_of
from payments.systems.documents.evidence import ErasedCustomerError, Evidence, read_evidence, store_evidence
from payments.systems.documents.media import JPEG, PDF, PNG, media_type_of
from payments.vault import DecryptionError, KeyRing, new_data_key, wrap
from tests.ingestion.raw import latest
from tests.systems.shop import Shop

pytestmark = pytest.mark.usefixtures("platform_home")

Store = Database[dict[str, Any]]
NOON = datetime(2026, 6, 2, 12, tzinfo=UTC)
ADA = UUID("00000000-0000-4000-8000-000000000001")


def segment(code: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(data) + 2) + data


def jpeg_of(comment: bytes = b"a picture", *, scan: bytes = b"\x12\xff\x00\x34\xff\xd0\x56") -> bytes:
    frame = segment(0xC0, b"\x08\x00\x01\x00\x01\x01\x01\x11\x00")
    start = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
    return b"\xff\xd8" + segment(0xFE, comment) + frame + start + scan + b"\xff\xd9"


FILES = {PDF: pdf_of("a receipt"), PNG: png_of(b"a picture"), JPEG: jpeg_of()}
ARCHIVE = b"PK\x05\x06" + bytes(18)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("media_type", FILES)
def test_a_whole_file_is_what_it_says(media_type: str) -> None:
    assert media_type_of(FILES[media_type]) == media_type
    assert media_type_of(FILES[media_type], media_type) == media_type
    for other in FILES.keys() - {media_type}:
        with pytest.raises(UsageError, match=f"is {media_type}, not {other} as declared"):
            media_type_of(FILES[media_type], other)


@pytest.mark.parametrize("media_type", FILES)
def test_every_cut_is_refused(media_type: str) -> None:
    content = FILES[media_type].rstrip()
    for size in range(len(content)):
        with pytest.raises(UsageError):
            media_type_of(content[:size])


def test_a_changed_byte_of_a_png_is_refused() -> None:
    content = FILES[PNG]
    for place in range(len(content)):
        with pytest.raises(UsageError):
            media_type_of(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"MZ\x90\x00", "none of"),
        (b"<html>%PDF-1.4</html>", "none of"),
        (b"junk" + FILES[PDF], "none of"),
        (FILES[PNG] + FILES[PDF], "something follows its end"),
        (FILES[JPEG] + b"\0", "something follows its end"),
        (FILES[PNG] + ARCHIVE, "something follows its end"),
        (FILES[PDF].replace(b"%%EOF", ARCHIVE + b"startxref\n9\n%%EOF"), "archive at once"),
        (jpeg_of(b"%PDF-1.4"), "at once"),
        (FILES[PDF].replace(b"%PDF-1.4", b"%PDF-x.4"), "no version"),
        (FILES[PDF].replace(b"startxref\n", b"startxref\n1"), "not where the end says"),
        (FILES[PNG][:8] + chunk(b"IHDR", bytes(13)) + chunk(b"IEND", b""), "no picture"),
        (jpeg_of(scan=b"")[:-2], "cut off"),
        (b"\xff\xd8\xff\xd9", "no picture"),
    ],
)
def test_refused_in_a_line(content: bytes, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        media_type_of(content)
    assert "\n" not in str(refused.value)


@pytest.fixture
def ring(platform_home: Path) -> KeyRing:
    assert platform_home.is_dir()
    return KeyRing.load_or_create(settings().key_ring_path)


@pytest.fixture
def dispute(oltp: psycopg.Connection, ring: KeyRing) -> str:
    """A dispute of a customer whom the vault knows."""
    shop = Shop(oltp).open()
    oltp.execute(
        "insert into vault.subjects (subject_id, key_id, wrapped_key) values (%s, %s, %s)",
        (ADA, ring.active_key_id, wrap(ring, new_data_key(), ADA)),
    )
    oltp.execute(
        "insert into identity.customers values (%s, %s, %s, '', '', '', '')", (shop.merchant_id, shop.customer_id, ADA)
    )
    return shop.dispute(shop.pay(5_000))


def evidence(dispute: str, content: bytes, **other: Any) -> Evidence:
    return Evidence(**{"merchant_id": "acct_shop", "dispute_id": dispute, "kind": "receipt", "content": content,
                       "uploaded_at": NOON, **other})  # fmt: skip


def test_a_file_is_kept_once_encrypted_and_read_back(
    documents: Store, oltp: psycopg.Connection, ring: KeyRing, dispute: str
) -> None:
    # Larger than a chunk of GridFS.
    content = pdf_of("a receipt of Ada " * 20_000)
    found = evidence(dispute, content, media_type=PDF)
    assert store_evidence(documents, oltp, ring, found)
    (document,) = documents["dispute_evidence"].find()
    version = oltp.execute("select version from core.disputes where dispute_id = %s", (dispute,)).fetchone()
    assert (document["dispute_version"],) == version
    assert (document["media_type"], document["size_bytes"], document["sha256"]) == (PDF, len(content), found.sha256)
    chunks = b"".join(part["data"] for part in documents["evidence.chunks"].find().sort("n"))
    assert len(chunks) > 255 * 1024
    assert b"receipt of Ada" not in chunks
    assert read_evidence(documents, oltp, ring, document["file_id"]) == content

    before = list(documents["evidence.files"].find())
    assert not store_evidence(documents, oltp, ring, found)
    assert list(documents["evidence.files"].find()) == before
    assert documents["dispute_evidence"].count_documents({}) == 1

    (counts,) = land_documents(["dispute_evidence"])[0].entities
    assert counts.accepted == 1
    assert latest("documents", "dispute_evidence", "dispute_id, size_bytes") == [
        {"dispute_id": dispute, "size_bytes": len(content)}
    ]


def test_what_a_crash_left_is_used(documents: Store, oltp: psycopg.Connection, ring: KeyRing, dispute: str) -> None:
    found = evidence(dispute, FILES[PNG])
    store_evidence(documents, oltp, ring, found)
    (left,) = documents["evidence.files"].find()
    documents["dispute_evidence"].delete_many({})
    assert store_evidence(documents, oltp, ring, found)
    assert list(documents["evidence.files"].find()) == [left]
    assert read_evidence(documents, oltp, ring, found.file_id) == FILES[PNG]

    documents["evidence.chunks"].update_one({}, {"$set": {"data": left["_id"].encode()}})
    with pytest.raises((UsageError, DecryptionError)):
        read_evidence(documents, oltp, ring, found.file_id)
    documents["evidence.chunks"].delete_many({})
    with pytest.raises(UsageError, match="not whole"):
        read_evidence(documents, oltp, ring, found.file_id)


def test_after_an_erasure_nothing_is_read_or_kept(
    documents: Store, oltp: psycopg.Connection, ring: KeyRing, dispute: str
) -> None:
    found = evidence(dispute, FILES[PNG])
    store_evidence(documents, oltp, ring, found)
    oltp.execute("update vault.subjects set wrapped_key = null, erased_at = now()")
    with pytest.raises(ErasedCustomerError):
        read_evidence(documents, oltp, ring, found.file_id)
    with pytest.raises(ErasedCustomerError):
        store_evidence(documents, oltp, ring, evidence(dispute, FILES[PDF]))
    assert documents["dispute_evidence"].count_documents({}) == 1


def test_nothing_is_stored_of_what_is_refused(
    documents: Store, oltp: psycopg.Connection, ring: KeyRing, dispute: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = {
        "no dispute dp_none": evidence("dp_none", FILES[PNG]),
        "has no dispute": evidence(dispute, FILES[PNG], merchant_id="acct_other"),
        "no kind selfie": evidence(dispute, FILES[PNG], kind="selfie"),
        "as declared": evidence(dispute, FILES[PNG], media_type=PDF),
        "no whole": evidence(dispute, FILES[PNG][:-1]),
    }
    for reason, found in refused.items():
        with pytest.raises(UsageError, match=reason):
            store_evidence(documents, oltp, ring, found)
    monkeypatch.setenv("PAYMENTS_CONTENT_MAX_BYTES", str(len(FILES[PNG]) - 1))
    settings.cache_clear()
    with pytest.raises(UsageError, match="make it smaller"):
        store_evidence(documents, oltp, ring, evidence(dispute, FILES[PNG]))
    for name in ("dispute_evidence", "evidence.files", "evidence.chunks"):
        assert documents[name].find_one() is None


def test_the_commands_take_and_give_back_and_refuse_in_a_line(
    documents: Store, dispute: str, platform_home: Path
) -> None:
    path, back = platform_home / "picture.png", platform_home / "back.png"
    path.write_bytes(FILES[PNG])
    arguments = ["evidence", "add", str(path), "--dispute", dispute, "--merchant", "acct_shop", "--kind", "receipt"]
    refused = subprocess.run(
        [sys.executable, "-m", "payments", *arguments, "--media-type", "application/pdf"],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=PROJECT_ROOT,
        check=False,
    )
    assert refused.returncode == 2
    assert refused.stderr == (
        "payments: The file is image/png, not application/pdf as declared: correct the type or the file.\n"
    )
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (document,) = documents["dispute_evidence"].find()
    assert CliRunner().invoke(app, ["evidence", "get", document["_id"], "--to", str(back)]).exit_code == 0
    assert back.read_bytes() == FILES[PNG]
