"""The operational store lands as one consistent snapshot, also while payments go on."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event, Thread

import psycopg
import pytest

from ingestion.contracts import entities
from ingestion.landing import LandingReport
from ingestion.oltp import SnapshotPoint, epoch_of, land_oltp
from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect
from tests.conftest import Servers
from tests.ingestion.raw import Row, latest, pin, refused, rows
from tests.systems.shop import MERCHANT, Shop, busy_market

pytestmark = pytest.mark.usefixtures("platform_home")


def counts(report: LandingReport, name: str) -> tuple[int, int, int, int, int]:
    (found,) = (part for part in report.entities if part.entity == name)
    return found.read, found.accepted, found.unchanged, found.quarantined, found.deleted


def test_a_snapshot_lands_then_only_what_changed(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    charges = [shop.confirm(shop.intend(1_000 + number)) for number in range(3)]
    first = land_oltp()
    assert counts(first, "charges") == (3, 3, 0, 0, 0)
    assert counts(first, "ledger_entries") == (9, 9, 0, 0, 0)
    assert counts(land_oltp(), "charges") == (3, 0, 3, 0, 0)

    oltp.execute("update core.charges set is_disputed = true where charge_id = %s", (charges[0],))
    third = land_oltp()
    assert counts(third, "charges") == (3, 1, 2, 0, 0)
    change = rows("oltp", "charges")[-1]
    assert (change["_op"], change["charge_id"], change["is_disputed"]) == ("u", charges[0], True)
    assert json.loads(change["_before"])["is_disputed"] is False
    assert change["_key"] == json.dumps([MERCHANT, charges[0]], separators=(",", ":"))


def test_absent_rows_become_deletions_and_may_come_back(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    land_oltp()
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("delete from core.payment_methods")
    assert counts(land_oltp(), "payment_methods") == (0, 0, 0, 0, 1)
    gone = rows("oltp", "payment_methods")[-1]
    assert (gone["_op"], gone["payment_method_id"], gone["fingerprint"]) == ("d", "pm_ada", "fp_1")
    assert latest("oltp", "payment_methods") == []
    assert counts(land_oltp(), "payment_methods") == (0, 0, 0, 0, 0)

    Shop(oltp, customer_id="cus_bob", payment_method_id="pm_bob", merchant_id="acct_other").open()
    assert counts(land_oltp(), "payment_methods") == (1, 1, 0, 0, 0)


def test_text_arrives_as_it_is(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    odd = ['say "hi", twice\nand \\N', "", " ", "NULL", "'; drop", "tab\tä€𝄞", "a,b", '"', "\r\n"]
    for number, name in enumerate(odd):
        Shop(oltp, merchant_id=f"acct_{number}").open()
        oltp.execute("update core.merchants set business_name = %s where merchant_id = %s", (name, f"acct_{number}"))
    land_oltp()
    landed = {row["merchant_id"]: row["business_name"] for row in rows("oltp", "merchants")}
    assert [landed[f"acct_{number}"] for number in range(len(odd))] == odd
    assert [row["failure_code"] for row in rows("oltp", "charges")] == []


def test_types_and_envelope(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.confirm(shop.intend(1_000))
    report = land_oltp()
    (charge,) = rows("oltp", "charges")
    assert (charge["amount_minor"], charge["is_disputed"], float(charge["anomaly_score"])) == (1_000, False, 0.1)
    assert charge["created_at"] == datetime(2026, 3, 10, 12, tzinfo=UTC)
    assert charge["failure_code"] is None
    commit = pin().commits[-1]
    assert (charge["_op"], charge["_batch_id"], charge["_sequence"]) == ("r", report.batch_id, report.sequence)
    assert charge["_source_at"] == commit.source_at
    epoch, lsn, *_ = charge["_position"].split("/")
    assert (int(epoch, 16), int(lsn, 16)) == (1, int(commit.parameters["lsn"]))
    landed = [row for name in ("merchants", "charges", "ledger_entries") for row in rows("oltp", name)]
    assert len({row["_position"] for row in landed}) == len(landed)
    assert max(row["_position"] for row in landed) <= commit.position
    assert "@" not in commit.origin, "credentials in the lineage"


def test_the_snapshot_is_consistent_while_payments_go_on(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    before = [shop.confirm(shop.intend(500)) for _ in range(20)]
    stop, made = Event(), []

    def pay() -> None:
        with connect(autocommit=True) as connection:
            busy = replace(shop, connection=connection)
            while not stop.is_set():
                made.append(busy.confirm(busy.intend(700)))

    payer = Thread(target=pay)
    payer.start()
    try:
        while len(made) < 5:
            assert payer.is_alive()
        at_start = len(made)
        land_oltp()
        at_end = len(made)
        land_oltp()
    finally:
        stop.set()
        payer.join()

    assert at_end > at_start, "nothing was paid during the landing"
    for last in (1, 2):
        landed = {name: _up_to(name, last) for name in ("charges", "ledger_transactions", "ledger_entries")}
        sums: Counter[str] = Counter()
        for entry in landed["ledger_entries"]:
            sums[entry["currency"]] += entry["amount_minor"] * (1 if entry["side"] == "D" else -1)
        assert dict(sums) == {"EUR": 0}
        posted = {row["source_id"] for row in landed["ledger_transactions"]}
        charged = {row["charge_id"] for row in landed["charges"]}
        assert charged == posted
        assert charged >= {*before, *made[:at_start]}
        moved = sum(entry["amount_minor"] for entry in landed["ledger_entries"] if entry["side"] == "D")
        assert moved == sum(row["amount_captured_minor"] for row in landed["charges"])
        # The running totals of the accounts are those of exactly these entries.
        accounts = {row["ledger_account_id"]: row for row in _up_to("ledger_accounts", last)}
        totals = Counter(entry["ledger_account_id"] for entry in landed["ledger_entries"])
        assert {name: row["entry_count"] for name, row in accounts.items()} == dict(totals)


def _up_to(entity: str, sequence: int) -> list[Row]:
    newest: dict[str, Row] = {}
    for row in rows("oltp", entity):
        if row["_sequence"] <= sequence:
            newest[row["_key"]] = row
    return [row for row in newest.values() if row["_op"] != "d"]


def test_a_card_number_is_quarantined_and_settled_when_the_source_is_mended(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    oltp.execute("update core.merchants set business_name = 'Shop 4111 1111 1111 1111'")
    assert counts(land_oltp(), "merchants") == (1, 0, 0, 1, 0)
    assert counts(land_oltp(), "merchants") == (1, 0, 0, 1, 0)
    (row,) = refused("oltp", "merchants")
    assert (row["rule"], row["reason"]) == ("card_number", "card number (visa) in column business_name")
    assert "4111 1111" not in row["record"]
    oltp.execute("update core.merchants set business_name = 'Shop'")
    assert counts(land_oltp(), "merchants") == (1, 1, 0, 0, 0)
    (merchants,) = (part for part in pin().commits[-1].entities if part.entity == "merchants")
    assert merchants.resolved_files != []


def test_a_row_that_no_longer_fits_is_not_a_deletion(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    land_oltp()
    oltp.execute("update core.merchants set business_name = '4111111111111111'")
    assert counts(land_oltp(), "merchants") == (1, 0, 0, 1, 0)
    assert [row["business_name"] for row in latest("oltp", "merchants")] == ["Shop"]


def test_a_role_that_sees_neither_identity_nor_keys_suffices(
    oltp: psycopg.Connection, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(oltp).open()
    oltp.execute("drop role if exists lander")
    oltp.execute("create role lander login password 'lander'")
    try:
        oltp.execute(f"grant connect on database {oltp.info.dbname} to lander".encode())
        oltp.execute("grant payments_replication to lander")
        address = f"postgresql://lander:lander@127.0.0.1:{servers.oltp_port}/{oltp.info.dbname}"
        with monkeypatch.context() as patch:
            patch.setenv("PAYMENTS_OLTP_DSN", address)
            settings.cache_clear()
            assert counts(land_oltp(), "customers") == (1, 1, 0, 0, 0)
            # One that acts for a merchant sees its rows alone: the others would count as deleted.
            oltp.execute("grant payments_app to lander")
            oltp.execute("revoke payments_replication from lander")
            with pytest.raises(
                UsageError, match=r"shows lander only part of core\.adjustments: grant payments_replication"
            ):
                land_oltp()
            oltp.execute("alter role lander bypassrls")
            with pytest.raises(UsageError, match="refuses to be read: permission denied for table account_codes"):
                land_oltp()
        settings.cache_clear()
        assert "lander:" not in pin().commits[-1].origin
        assert pin().sequence == 1, "a landing that fails half-way commits nothing"
    finally:
        oltp.execute("drop owned by lander")
        oltp.execute("drop role lander")


LEFT_OUT = {
    "adjustments": {"reason", "proposed_by", "decided_by"},
    "invoice_lines": {"description"},
    "ledger_closed_periods": {"closed_by"},
    "ledger_transactions": {"recorded_xid"},
}
"""What never lands: text and names that a person wrote, and the number of the database transaction."""

NOT_IN_THE_MARKET = {"setup_intents", "reviews", "early_fraud_warnings", "checkout_sessions", "ledger_closed_periods"}


def test_the_contract_names_every_table_with_its_columns_and_key(oltp: psycopg.Connection) -> None:
    tables = {
        (f"ledger_{table}" if schema == "ledger" else table): (set(columns), key)
        for schema, table, columns, key in oltp.execute(
            """
            select
                n.nspname,
                c.relname,
                (
                    select array_agg(a.attname::text) from pg_attribute as a
                    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
                ),
                (
                    select array_agg(a.attname::text order by array_position(i.indkey::int[], a.attnum::int))
                    from pg_index as i
                    inner join pg_attribute as a on i.indrelid = a.attrelid and a.attnum = any(i.indkey)
                    where i.indrelid = c.oid and i.indisprimary
                )
            from pg_class as c
            inner join pg_namespace as n on c.relnamespace = n.oid
            where n.nspname in ('core', 'ledger') and c.relkind in ('r', 'p') and not c.relispartition
            """
        ).fetchall()
    }
    contract = entities("oltp")
    assert contract.keys() == tables.keys()
    for name, (columns, key) in tables.items():
        assert columns - set(contract[name].column_names) == LEFT_OUT.get(name, set()), name
        # A table that is partitioned by time has the time in its key, which tells no rows apart.
        assert contract[name].key == tuple(column for column in key if column != "posted_at"), name


def test_every_table_lands_whole(oltp: psycopg.Connection) -> None:
    busy_market(oltp)
    report = land_oltp()
    for part in report.entities:
        schema, table = ("ledger", part.entity[7:]) if part.entity.startswith("ledger_") else ("core", part.entity)
        ((there,),) = oltp.execute(f"select count(*) from {schema}.{table}".encode()).fetchall()
        assert (part.entity, part.read, part.accepted, part.quarantined) == (part.entity, there, there, 0)
    assert {part.entity for part in report.entities if not part.read} == NOT_IN_THE_MARKET
    assert {part.accepted + part.deleted for part in land_oltp().entities} == {0}
    (seal,) = latest("oltp", "ledger_seals")
    stored = oltp.execute("select seal_no, from_xid::text::bigint, seal_hash::text from ledger.seals").fetchone()
    assert (seal["seal_no"], seal["from_xid"], seal["seal_hash"]) == stored


def test_the_epoch_grows_when_the_log_is_another_one(oltp: psycopg.Connection) -> None:
    land_oltp()
    last = pin().commits[-1]
    point = SnapshotPoint(
        last.parameters["system_identifier"],
        int(last.parameters["timeline"]),
        int(last.parameters["lsn"]),
    )
    assert epoch_of(None, point) == 1
    assert epoch_of(last, point) == 1
    assert epoch_of(last, replace(point, lsn=point.lsn + 1)) == 1
    assert epoch_of(last, replace(point, lsn=point.lsn - 1)) == 2
    assert epoch_of(last, replace(point, timeline=point.timeline + 1)) == 2
    assert epoch_of(last, replace(point, system_identifier="another")) == 2
    assert oltp.execute("select system_identifier::text from pg_control_system()").fetchone() == (
        point.system_identifier,
    )
