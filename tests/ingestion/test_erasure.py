"""A person who was erased is in no file and no store any more, and nothing that is read again brings them back."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow.parquet as pq
import pytest
from pymongo.database import Database

from ingestion.cdc.copies import advance_copies
from ingestion.cdc.stream import drain
from ingestion.compaction import Draft, compact, switch
from ingestion.documents import land_documents
from ingestion.erasure import Erasure, erase_customer, reapply
from ingestion.oltp import land_oltp
from ingestion.quarantine import list_quarantine
from ingestion.raw_zone import Checkpoint, RawZone
from ingestion.warehouse import load_postgres
from payments.compliance.documents import copies_reached, load_spent, spent_compared
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.documents.client import uri
from payments.systems.documents.versioned import Outcome, upsert
from payments.systems.oltp import backup, server
from payments.systems.oltp.connection import connect
from payments.systems.oltp.migrations import migrate
from payments.vault import KeyRing, new_data_key, wrap
from tests.conftest import Servers, drop_slot
from tests.ingestion.raw import latest, pin, refused, rows
from tests.systems.shop import MERCHANT, Shop
from tests.systems.stores import own_store

pytestmark = pytest.mark.usefixtures("platform_home")

MARKS = ("Zzyzx", "zzyzx.example", "nt_zzyzx", "fp_zzyzx")
"""Content of the person, in every store."""
THEIRS, OTHERS = "cus_ada", "cus_bob"


def open_shop(oltp: psycopg.Connection, customer_id: str, suffix: str) -> Shop:
    shop = Shop(oltp, customer_id=customer_id, payment_method_id=f"pm_{suffix}")
    if customer_id == THEIRS:
        shop.open()
    else:
        oltp.execute(
            """
            insert into core.customers select (jsonb_populate_record(c, jsonb_build_object('customer_id', %s::text))).*
            from core.customers as c
            """,
            (customer_id,),
        )
        oltp.execute(
            """
            insert into core.payment_methods select
                (jsonb_populate_record(p, jsonb_build_object('customer_id', %s::text, 'payment_method_id', %s::text))).*
            from core.payment_methods as p
            """,
            (customer_id, f"pm_{suffix}"),
        )
    ring = KeyRing.load_or_create(settings().key_ring_path)
    subject = uuid.uuid4()
    oltp.execute(
        "insert into vault.subjects (subject_id, key_id, wrapped_key) values (%s, %s, %s)",
        (subject, ring.active_key_id, wrap(ring, new_data_key(), subject)),
    )
    oltp.execute("insert into identity.customers values (%s, %s, %s, '', '', '', '')", (MERCHANT, customer_id, subject))
    return shop


def describe(oltp: psycopg.Connection) -> None:
    """Give the person content that can be searched for."""
    oltp.execute(
        "update core.customers set city = %s, email_domain = %s, network_token = %s where customer_id = %s",
        (*MARKS[:3], THEIRS),
    )
    oltp.execute("update core.payment_methods set fingerprint = %s where customer_id = %s", (MARKS[3], THEIRS))


def profile(customer_id: str, version: int = 1) -> dict[str, Any]:
    return {
        "_id": customer_id,
        "merchant_id": MERCHANT,
        "version": version,
        "country": "FR",
        "segment": "loyal",
        "payment_count": 77,
        "first_paid_at": None,
        "last_paid_at": None,
        "spent": [],
        "recent_charges": [],
        "updated_at": datetime(2026, 1, 1, tzinfo=UTC),
        "schema_version": 1,
    }


def features(entity: str) -> dict[str, Any]:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    return {
        "_id": entity,
        "version": 1,
        "feature_values": {"payments": 77},
        "last_paid_at": None,
        "as_of": moment,
        "refresh_at": None,
        "schema_version": 1,
    }


def found_on_disk() -> list[str]:
    """Where below the raw zone any content of the person stands: every file there is, whoever names it."""
    found = []
    for path in settings().raw_zone.rglob("*"):
        if path.suffix == ".parquet":
            values = pq.read_table(path).to_pylist()
            found += [
                f"{path}: profile"
                for row in values
                if (row.get("customer_id"), row.get("payment_count")) == (THEIRS, 77)
            ]
            text = repr(values)
        else:
            text = path.read_bytes().decode() if path.is_file() else ""
        found += [f"{path}: {mark}" for mark in MARKS if mark in text]
    return found


@pytest.fixture
def landed(oltp: psycopg.Connection, documents: Database[dict[str, Any]]) -> Iterator[psycopg.Connection]:
    """Two customers in all stores: landed by snapshot and log, in merged and in small files, and in quarantine."""
    assert documents.name
    drop_slot(oltp)
    open_shop(oltp, THEIRS, "ada").pay(1_000)
    open_shop(oltp, OTHERS, "bob")
    describe(oltp)
    upsert("customer_profiles", profile(THEIRS))
    upsert("customer_profiles", profile(OTHERS))
    upsert("online_features", features(f"customer:{MARKS[2]}"))
    upsert("online_features", features("customer:nt_1"))
    drain()
    land_documents(["customer_profiles"])
    oltp.execute("update core.customers set city = 'Zzyzx 4242424242424242' where customer_id = %s", (THEIRS,))
    drain()
    compact()
    describe(oltp)
    drain()
    yield oltp
    drop_slot(oltp)


def states(entity: str, source: str = "oltp") -> dict[str, str]:
    """The latest operation of each customer's row."""
    newest = {row["_key"]: row for row in rows(source, entity, order="_position")}
    return {key: row["_op"] for key, row in newest.items()}


def test_an_erased_person_is_in_no_file_and_no_store(
    landed: psycopg.Connection, documents: Database[dict[str, Any]]
) -> None:
    assert len(found_on_disk()) > 10, "the person is there"
    assert [record.rule for record in list_quarantine(entity="customers")] == ["card_number"]
    before = {entity: rows("oltp", entity, order="_position") for entity in ("customers", "charges")}
    done = erase_customer(THEIRS)
    assert (done.customers, done.quarantined, done.documents, done.keys) == (((MERCHANT, THEIRS),), 1, 2, 1)
    assert done.rows == 5, "versions of the customer, the card and the profile"
    assert found_on_disk() == []

    after = rows("oltp", "customers", order="_position")
    assert len(after) == len(before["customers"]) + 1, "a deletion follows; no row is lost"
    theirs = [row for row in after if row["customer_id"] == THEIRS]
    assert {row["_op"] for row in theirs} == {"d"}
    assert {name for row in theirs for name, value in row.items() if value is not None and name[0] != "_"} == {
        "merchant_id",
        "customer_id",
    }
    assert theirs[-1]["_sequence"] == max(row["_sequence"] for row in after)
    assert theirs[-1]["_position"] == max(row["_position"] for row in after)
    assert [row for row in after if row["customer_id"] == OTHERS] == [
        row for row in before["customers"] if row["customer_id"] == OTHERS
    ]
    assert rows("oltp", "charges", order="_position") == before["charges"], "their money stays"
    assert [row["customer_id"] for row in latest("oltp", "payment_methods")] == [OTHERS]
    assert [row["customer_id"] for row in latest("documents", "customer_profiles")] == [OTHERS]
    assert [row["record"] for row in refused("oltp", "customers")] == ["{}"]
    assert list_quarantine(entity="customers") == []
    known = {
        (batch.batch_id, part.entity)
        for source in ("oltp", "documents")
        for batch in pin().batches(source)
        for part in batch.entities
    }
    assert {(row["_batch_id"], "customers") for row in after} <= known, "every row's batch is known"

    assert landed.execute("select count(*) from vault.subjects where wrapped_key is null").fetchone() == (1,)
    assert documents["customer_profiles"].distinct("_id") == [OTHERS]
    assert documents["online_features"].distinct("_id") == ["customer:nt_1"]
    again = erase_customer(THEIRS)
    assert (again.documents, again.keys, again.quarantined, found_on_disk()) == (0, 0, 0, [])


def test_nothing_that_is_read_again_brings_them_back(
    landed: psycopg.Connection, documents: Database[dict[str, Any]]
) -> None:
    erase_customer(THEIRS)
    describe(landed)  # the log tells of them again
    landed.execute("update core.customers set city = 'Zzyzx 4242424242424242' where customer_id = %s", (THEIRS,))
    landed.execute("update core.customers set city = 'Paris' where customer_id = %s", (OTHERS,))
    (report,) = drain()
    counts = {part.entity: (part.read, part.accepted, part.quarantined, part.deleted) for part in report.entities}
    assert counts == {"customers": (3, 3, 0, 2), "payment_methods": (1, 1, 0, 1)}
    assert found_on_disk() == []
    assert [row["city"] for row in latest("oltp", "customers")] == ["Paris"]

    compared = {part.entity: part for part in land_oltp().entities}  # a snapshot has them
    assert (compared["customers"].unchanged, compared["customers"].deleted) == (2, 0)
    documents["customer_profiles"].insert_one({**profile(THEIRS), "written_at": datetime.now(UTC)})
    land_documents(["customer_profiles"])
    land_documents(["customer_profiles"], full=True)
    assert found_on_disk() == []

    compact()
    land_oltp()
    assert found_on_disk() == []
    assert states("customers") == {f'["{MERCHANT}","{THEIRS}"]': "d", f'["{MERCHANT}","{OTHERS}"]': "u"}
    assert [row["customer_id"] for row in latest("documents", "customer_profiles")] == [OTHERS]
    assert reapply().documents == 1
    assert upsert("customer_profiles", profile(THEIRS, version=9)) == Outcome.REMOVED, "a copy that comes later"
    assert documents["customer_profiles"].distinct("_id") == [OTHERS]


def test_a_restored_store_is_erased_again(
    reachable_folder: Path, servers: Servers, documents: Database[dict[str, Any]], platform_home: Path
) -> None:
    assert servers.documents_port
    assert platform_home.exists()
    with own_store(reachable_folder, PAYMENTS_DOCUMENTS_URI=uri()):
        server.start()
        migrate()
        with connect(autocommit=True) as oltp:
            open_shop(oltp, THEIRS, "ada")
            describe(oltp)
        upsert("customer_profiles", profile(THEIRS))
        drain()
        land_documents(["customer_profiles"])
        backup.backup()
        with connect(autocommit=True) as oltp:
            (before,) = oltp.execute("select clock_timestamp()").fetchone() or (None,)
        erase_customer(THEIRS)
        backup.restore(before)
        with connect(autocommit=True) as oltp:
            erased = "select wrapped_key is null from vault.subjects"
            assert oltp.execute(erased).fetchall() == [(False,)], "the restore brought the key back"
        documents["deletions"].delete_many({})
        assert upsert("customer_profiles", profile(THEIRS)) == Outcome.WRITTEN  # a restored document store
        assert reapply() == Erasure(((MERCHANT, THEIRS),), 0, 0, documents=1, keys=1)
        with connect(autocommit=True) as oltp:
            assert oltp.execute(erased).fetchall() == [(True,)]
        drain()  # another timeline: a snapshot
        land_documents(["customer_profiles"])
        assert found_on_disk() == []
        assert latest("oltp", "customers") == []


def test_the_warehouse_loads_again_what_was_rewritten(
    landed: psycopg.Connection, warehouse: psycopg.Connection
) -> None:
    load_postgres()
    erase_customer(THEIRS)
    loaded = load_postgres()
    assert loaded["raw_oltp.charges"] == 0
    assert loaded["raw_oltp.customers"] == len(rows("oltp", "customers"))
    assert set(load_postgres().values()) == {0}
    for table in ("raw_oltp.customers", "raw_oltp.payment_methods", "raw_platform.quarantine"):
        text = str(warehouse.execute(f"select * from {table}".encode()).fetchall())
        assert [mark for mark in MARKS if mark in text] == []
    counted = warehouse.execute("select count(*) from raw_oltp.customers").fetchone()
    assert counted == (loaded["raw_oltp.customers"],)
    batches = warehouse.execute("select count(*) from raw_platform.batches where kind = 'erasure'").fetchone()
    assert batches == (3,)


def test_what_an_erased_customer_spent_is_no_difference(landed: psycopg.Connection) -> None:
    Shop(landed, customer_id=OTHERS, payment_method_id="pm_bob").later(minutes=5).pay(2_000, charge_id="ch_bob")
    drain()
    for customers in ((THEIRS, OTHERS), (OTHERS,)):
        assert advance_copies().failure is None
        copied = copies_reached()
        assert copied is not None
        with duckdb.connect() as con:
            load_spent(con)
            told = {row[0] for row in con.execute("select customer_id from spent").fetchall()}
            found = spent_compared(con, pin(), copied)
        assert told == set(customers)
        assert (found.agrees, found.contents["raw zone"].rows) == (True, len(customers))
        if THEIRS in customers:
            erase_customer(THEIRS)
    with duckdb.connect() as con:
        load_spent(con)
        nothing = spent_compared(con, RawZone(settings().raw_zone.parent / "another").pin(), 0)
    assert nothing.contents["raw zone"].rows == 0


def test_a_killed_erasure_is_finished(landed: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    class KilledError(Exception):
        """Stands for the end of the process."""

    def die(*_: object) -> None:
        raise KilledError

    def switch_and_die(draft: Draft, checkpoint: Checkpoint) -> None:
        switch(draft, checkpoint)
        die()

    before = rows("oltp", "customers", order="_position")
    with monkeypatch.context() as patch:
        patch.setattr("ingestion.compaction.move_record", die)
        with pytest.raises(KilledError):
            erase_customer(THEIRS)
    assert rows("oltp", "customers", order="_position") == before, "nothing happened"
    with monkeypatch.context() as patch:
        patch.setattr("ingestion.erasure.switch", switch_and_die)
        with pytest.raises(KilledError):
            erase_customer(THEIRS)
    assert found_on_disk() != [], "the old files are there, and no reader's"
    assert {row["_op"] for row in rows("oltp", "customers") if row["customer_id"] == THEIRS} == {"d"}
    assert (reapply().keys, found_on_disk()) == (1, [])
    assert landed.execute("select count(*) from vault.subjects where wrapped_key is null").fetchone() == (1,)


def test_a_wrong_customer_is_one_line(landed: psycopg.Connection) -> None:
    with pytest.raises(UsageError, match="No customer cus_nobody has an identity"):
        erase_customer("cus_nobody")
    with pytest.raises(UsageError, match="No customer cus_ada"):
        erase_customer(THEIRS, "acct_other")
    assert landed.execute("select count(*) from vault.subjects where wrapped_key is null").fetchone() == (0,)
    assert reapply() == Erasure((), 0, 0, 0, 0)
