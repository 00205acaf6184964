"""Change data capture without a broker: what is committed lands once, in order, whatever dies in between."""

import json
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import LiteralString

import psycopg
import pytest

from ingestion.cdc.batches import ChangeTables
from ingestion.cdc.generation import NAME, resnapshot
from ingestion.cdc.slot import SlotReader
from ingestion.cdc.snapshot import Range, Snapshots
from ingestion.cdc.stream import _reading, drain, follow
from ingestion.oltp import land_oltp, snapshot_point
from ingestion.raw_zone import BatchFiles, Commit
from payments.errors import UnreachableError, UsageError
from payments.queries.catalogue import query_named
from payments.settings import settings
from payments.simulation.traffic import run_traffic
from payments.systems.oltp.connection import connect, dsn
from payments.systems.processes import wait_until
from tests.ingestion.raw import latest, pin, refused, rows
from tests.systems.shop import MERCHANT, NOON, Shop

pytestmark = pytest.mark.usefixtures("platform_home", "without_slot")


def stored(oltp: psycopg.Connection, table: str, columns: str) -> list[dict[str, object]]:
    names = columns.split(", ")
    found = oltp.execute(f"select {columns} from {table} order by 1, 2, 3".encode()).fetchall()
    return [dict(zip(names, row, strict=True)) for row in found]


def test_a_snapshot_first_then_every_change_once(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    (snapshot,) = drain()
    assert pin().commits[-1].kind == "snapshot"
    assert {counts.entity: counts.accepted for counts in snapshot.entities}["merchants"] == 1
    assert drain() == []

    oltp.execute("update core.customers set city = 'Paris' where merchant_id = %s", (MERCHANT,))
    oltp.execute("update core.customers set city = 'Nice' where merchant_id = %s", (MERCHANT,))
    shop.pay(1_000)
    assert len(drain()) == 1
    assert pin().commits[-1].kind == "log"
    customers = [(row["_op"], row["city"], row["version"]) for row in rows("oltp", "customers")]
    assert customers == [("r", "Lyon", 1), ("u", "Paris", 2), ("u", "Nice", 3)]
    columns = "merchant_id, charge_id, amount_minor, status, version"
    assert latest("oltp", "charges", columns) == stored(oltp, "core.charges", columns)
    entries = [row["_position"] for row in rows("oltp", "ledger_entries")]
    assert len(set(entries)) == len(entries)
    assert drain() == []


def test_what_is_sent_again_is_left_out(oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(oltp).open()
    drain()
    with monkeypatch.context() as patch:
        # As if the process died after the batch was durable and before the server knew.
        patch.setattr(SlotReader, "acknowledge", lambda *_: None)
        shop.pay(1_000)
        drain()
        shop.pay(2_000)
        drain()
    before = rows("oltp", "ledger_entries")
    assert drain() == []
    shop.pay(3_000)
    drain()
    after = rows("oltp", "ledger_entries")
    assert after[: len(before)] == before
    assert len({(row["merchant_id"], row["ledger_transaction_id"], row["entry_no"]) for row in after}) == len(after)
    columns = "merchant_id, ledger_transaction_id, entry_no, amount_minor"
    assert latest("oltp", "ledger_entries", columns) == stored(oltp, "ledger.entries", columns)


def test_a_batch_that_was_not_published_is_read_again(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(oltp).open()
    drain()
    shop.pay(1_000)
    with monkeypatch.context() as patch:
        patch.setattr(BatchFiles, "publish", _die)
        with pytest.raises(KilledError):
            drain()
    assert rows("oltp", "charges") == []
    drain()
    assert [row["status"] for row in latest("oltp", "charges")] == ["succeeded"]


def test_what_a_keepalive_says_is_not_acknowledged_while_a_batch_is_under_way(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    drain()
    shop.pay(1_000)
    with _reading() as reader:
        batch = reader.collect(60, 10_000, snapshot_point(oltp).lsn)
        oltp.execute("select pg_logical_emit_message(true, 'others', 'write')")
        # The server says that it has read on: of what is in our hands it knows nothing.
        assert reader.collect(60, 10_000, snapshot_point(oltp).lsn) is None
    assert batch is not None
    query = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s and not active"
    assert wait_until(lambda: oltp.execute(query, (NAME,)).fetchone() is not None, 60), "the last word has come"
    (confirmed,) = oltp.execute(query, (NAME,)).fetchone() or (0,)
    assert confirmed <= batch.start_lsn
    assert sum(counts.read for report in drain() for counts in report.entities) == batch.rows


def test_a_transaction_that_began_first_and_committed_last_comes_last(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    drain()
    update = "update core.customers set city = %s where merchant_id = %s"
    with connect() as early:
        early.execute("update core.merchants set business_name = 'Early' where merchant_id = %s", (MERCHANT,))
        oltp.execute(update, ("Paris", MERCHANT))
        drain()
        early.execute(update, ("Nice", MERCHANT))
    drain()
    assert [row["city"] for row in rows("oltp", "customers")] == ["Lyon", "Paris", "Nice"]
    assert [row["business_name"] for row in rows("oltp", "merchants")] == ["Shop", "Early"]
    assert shop.merchant_id == MERCHANT


def test_the_log_gives_what_a_snapshot_would(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    drain()
    report = run_traffic(tps=0, seconds=2, clients=3, seed=3)
    assert report.acknowledged
    drain()
    compared = land_oltp()
    differing = {
        counts.entity: counts for counts in compared.entities if counts.accepted or counts.deleted or counts.quarantined
    }
    assert differing == {}, "a snapshot finds nothing that the log did not bring"
    assert any(counts.unchanged > 50 for counts in compared.entities)


def test_a_large_value_that_the_log_does_not_repeat_is_filled(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    drain()
    name = "".join(Random(1).choices("0123456789abcdef", k=9_000))  # noqa: S311 (nothing that compresses well)
    update = "update core.merchants set {} where merchant_id = %s"
    oltp.execute(update.format("business_name = %s").encode(), (name, MERCHANT))
    drain()
    oltp.execute(update.format("country = 'DE'").encode(), (MERCHANT,))  # from what landed before
    drain()
    oltp.execute(update.format("country = 'IT'").encode(), (MERCHANT,))  # and from within the batch
    oltp.execute(update.format("country = 'ES'").encode(), (MERCHANT,))
    drain()
    landed = rows("oltp", "merchants")[1:]
    assert [row["country"] for row in landed] == ["FR", "DE", "IT", "ES"]
    assert {row["business_name"] for row in landed} == {name}
    assert [row["_unchanged_columns"] for row in landed] == [None, *['["business_name"]'] * 3]
    assert land_oltp().entities, "and a snapshot finds nothing else"
    assert len(rows("oltp", "merchants")) == 5


def test_a_changed_key_is_a_deletion_and_a_creation(oltp: psycopg.Connection) -> None:
    drain()
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")  # the categories are referred to
        oltp.execute("update core.merchant_categories set mcc = '9999' where mcc = '5812'")
    drain()
    (gone, made) = rows("oltp", "merchant_categories")[-2:]
    assert [(row["_op"], row["mcc"]) for row in (gone, made)] == [("d", "5812"), ("c", "9999")]
    assert gone["_position"] < made["_position"]
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("update core.merchant_categories set mcc = '5812' where mcc = '9999'")


def test_truncation_deletes_every_row_once(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    for name in ("one", "two", "three"):
        shop.coupon(1_000, coupon_id=f"co_{name}")
    drain()
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("delete from core.coupons where coupon_id = 'co_two'")
        oltp.execute("truncate core.coupons cascade")
    drain()
    ends = [(row["_op"], row["coupon_id"]) for row in rows("oltp", "coupons")[3:]]
    assert ends == [("d", "co_two"), ("d", "co_one"), ("d", "co_three")]
    assert latest("oltp", "coupons") == []


def test_changes_that_share_a_place_of_the_log_have_positions_of_their_own(oltp: psycopg.Connection) -> None:
    drain()
    with oltp.transaction():
        columns = "merchant_id, product_id, product_name, created_at, updated_at"
        oltp.execute("set local session_replication_role = replica")
        with oltp.cursor().copy(f"copy core.products ({columns}) from stdin".encode()) as copy:
            for number in range(5):
                copy.write_row((MERCHANT, f"prod_{number}", "Box", NOON, NOON))
        oltp.execute("truncate core.coupons, core.discounts")
    target = snapshot_point(oltp).lsn
    with _reading() as reader:
        batch = reader.collect(60, 1_000, target)
    assert batch is not None
    positions = [str(text) for table in batch.changes.values() for text in table["_position"].to_pylist()]
    assert len(set(positions)) == len(positions) == 7
    assert len({str(text)[:42] for text in positions}) == 2, "one place for the rows of a COPY, one for a TRUNCATE"


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("select pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", "was moved by somebody else"),
        ("select pg_drop_replication_slot(%s)", "is gone"),
    ],
)
def test_a_slot_that_is_not_where_it_was_left_is_refused(
    oltp: psycopg.Connection, statement: LiteralString, reason: str
) -> None:
    Shop(oltp).open()
    drain()
    oltp.execute("update core.customers set city = 'Paris' where merchant_id = %s", (MERCHANT,))
    oltp.execute(statement, (NAME,))
    with pytest.raises(UsageError, match=rf"slot payments {reason}.*payments stream --resnapshot"):
        drain()
    resnapshot()
    drain()
    assert pin().commits[-1].kind == "snapshot"
    assert [row["city"] for row in rows("oltp", "customers")] == ["Lyon", "Paris"]
    assert drain() == [], "it goes on from there"


def test_a_slot_is_free_when_its_reader_has_ended_and_not_before(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(oltp).open()
    drain()
    monkeypatch.setattr("ingestion.cdc.generation.TAKE_OVER_SECONDS", 0)
    with _reading(), pytest.raises(UsageError, match="is read by somebody else"):
        resnapshot()
    resnapshot()


def test_an_idle_stream_lets_the_server_forget_log_of_others(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s"
    drain()
    (before,) = oltp.execute(confirmed, (NAME,)).fetchone() or (0,)
    monkeypatch.setattr("ingestion.cdc.slot.IDLE_BYTES", 100_000)
    oltp.execute("create table core.noise as select repeat('x', 1000) as n from generate_series(1, 500)")
    oltp.execute("drop table core.noise")
    (written,) = oltp.execute("select (pg_current_wal_flush_lsn() - '0/0')::bigint").fetchone() or (0,)

    def is_told() -> bool:
        last = pin().commits[-1]
        return last.kind == "log" and last.entities == [] and int(last.parameters["lsn"]) >= written

    assert not any(step.changes for step in follow(is_told))
    (after,) = oltp.execute(confirmed, (NAME,)).fetchone() or (0,)
    assert before < written <= after
    assert drain() == []


def test_a_store_without_the_schema_is_one_line(oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENTS_OLTP_DSN", dsn("postgres"))
    settings.cache_clear()
    with pytest.raises(UsageError, match=r"lacks what is to be streamed .* run payments up"):
        drain()
    with pytest.raises(UsageError, match="charges-of-a-merchant cannot be run: relation"):
        query_named("charges-of-a-merchant").answer({}, 1)


class KilledError(Exception):
    """Stands for the end of the process."""


def _die(*_: object) -> None:
    raise KilledError


def test_following_lands_while_payments_go_on(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    drain()
    traffic = ThreadPoolExecutor(max_workers=1).submit(run_traffic, tps=30, seconds=3, clients=2, seed=5)
    landed = sum(step.changes for step in follow(traffic.done))
    landed += sum(counts.read for report in drain() for counts in report.entities)
    assert traffic.result().acknowledged
    columns = "merchant_id, ledger_transaction_id, entry_no, amount_minor"
    assert latest("oltp", "ledger_entries", columns) == stored(oltp, "ledger.entries", columns)
    assert landed == sum(part.read for commit in pin().commits if commit.kind == "log" for part in commit.entities)


def stopped() -> dict[str, str]:
    found: dict[str, str] = json.loads(pin().commits[-1].parameters.get("stopped", "{}"))
    return found


def test_columns_come_and_go_and_change_their_names(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.coupon(1_000, coupon_id="co_one")
    drain()
    months = "constraint repeating_has_months check ((duration = 'repeating') = (duration_in_months is not null))"
    try:
        oltp.execute("alter table core.coupons add column campaign text default 'spring'")
        oltp.execute("alter table core.coupons rename column duration_in_months to months")
        shop.coupon(2_000, coupon_id="co_two")
        drain()
        oltp.execute("update core.coupons set duration = 'repeating', months = 7 where coupon_id = 'co_two'")
        drain()
        oltp.execute("alter table core.coupons drop column months cascade")
        oltp.execute("update core.coupons set is_valid = false where coupon_id = 'co_two'")
        drain()
        landed = [(row["coupon_id"], row["duration_in_months"]) for row in rows("oltp", "coupons")]
        assert landed == [("co_one", None), ("co_two", None), ("co_two", 7), ("co_two", None)]
        assert "campaign" not in rows("oltp", "coupons")[-1], "no contract names it"
        assert stopped() == {}
    finally:
        oltp.execute("set session_replication_role = replica")
        oltp.execute("delete from core.coupons")
        oltp.execute("set session_replication_role = origin")
        oltp.execute("alter table core.coupons drop column if exists campaign, drop column if exists months")
        oltp.execute("alter table core.coupons add column duration_in_months smallint check (duration_in_months > 0)")
        oltp.execute(f"alter table core.coupons add {months}".encode())


def test_a_table_that_changes_within_a_batch_is_read_as_it_was(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    drain()
    try:
        shop.coupon(1_000, coupon_id="co_one")
        oltp.execute("alter table core.coupons add column campaign text default 'spring'")
        shop.coupon(2_000, coupon_id="co_two")
        oltp.execute("alter table core.coupons drop column campaign")
        shop.coupon(3_000, coupon_id="co_three")
        assert len(drain()) == 1
    finally:
        oltp.execute("alter table core.coupons drop column if exists campaign")
    landed = [(row["coupon_id"], row["percent_off_basis_points"]) for row in rows("oltp", "coupons")]
    assert landed == [("co_one", 1_000), ("co_two", 2_000), ("co_three", 3_000)]


def test_a_table_that_does_not_fit_any_more_stops_alone(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.coupon(1_000, coupon_id="co_one")
    drain()
    toggle = "update core.coupons set is_valid = not is_valid"
    try:
        oltp.execute("alter table core.coupons rename column percent_off_basis_points to share")
        oltp.execute("alter table core.coupons add column percent_off_basis_points text")
        oltp.execute(toggle.encode())
        shop.pay(1_000)
        drain()
        reason = "column percent_off_basis_points is no integer any more"
        assert stopped() == {"coupons": reason}
        assert [item["rule"] for item in refused("oltp", "coupons")] == ["stopped_table"]
        assert [row["status"] for row in latest("oltp", "charges")] == ["succeeded"], "the others go on"
        oltp.execute(toggle.encode())
        drain()
        assert len(refused("oltp", "coupons")) == 2, "it stays stopped"
    finally:
        oltp.execute("alter table core.coupons drop column percent_off_basis_points")
        oltp.execute("alter table core.coupons rename column share to percent_off_basis_points")
    drain()
    assert stopped() == {}, "a snapshot of it came first"
    oltp.execute(toggle.encode())
    drain()
    columns = "merchant_id, coupon_id, percent_off_basis_points, is_valid, version"
    assert latest("oltp", "coupons", columns) == stored(oltp, "core.coupons", columns)
    assert len(refused("oltp", "coupons")) == 2


def test_a_snapshot_goes_on_where_it_was_interrupted(oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(9):
        Shop(oltp, merchant_id=f"acct_{number}").open()
    monkeypatch.setattr("ingestion.cdc.snapshot.RANGE_BYTES", 40_000)
    publish, published = BatchFiles.publish, list[int]()

    def die_at_the_fourth(files: BatchFiles, commit: Commit) -> None:
        if len(published) == 4:
            raise KilledError
        published.append(commit.sequence)
        publish(files, commit)

    with monkeypatch.context() as patch:
        patch.setattr(BatchFiles, "publish", die_at_the_fourth)
        with pytest.raises(KilledError):
            drain()
    oltp.execute("update core.customers set city = 'Paris'")
    done = {part.entity for commit in pin().commits for part in commit.entities}
    assert done
    reports = drain()
    again = {counts.entity for report in reports for counts in report.entities} & done
    assert again <= {"customers"}, "what had landed is not read again, but by the log"
    assert len(reports) > 3
    for entity, column in (("customers", "customer_id"), ("merchants", "country"), ("payment_methods", "customer_id")):
        columns = f"merchant_id, {column}, version"
        assert latest("oltp", entity, columns) == stored(oltp, f"core.{entity}", columns)
    assert {row["city"] for row in latest("oltp", "customers")} == {"Paris"}


def test_a_large_table_lands_in_ranges(oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10, 40):
        Shop(oltp, merchant_id=f"acct_{number}").open()
    monkeypatch.setattr("ingestion.cdc.snapshot.RANGE_BYTES", 20_000)
    drain()
    parts = [part.read for commit in pin().commits for part in commit.entities if part.entity == "customers"]
    assert len(parts) > 1
    assert sum(parts) == 30
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("delete from core.customers where merchant_id = 'acct_17'")
    resnapshot()
    drain()
    gone = [(row["_op"], row["merchant_id"]) for row in rows("oltp", "customers") if row["_op"] != "r"]
    assert gone == [("d", "acct_17")]
    assert len(rows("oltp", "customers")) == 31


def test_a_large_table_goes_on_behind_the_range_at_which_it_was_interrupted(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10, 40):
        Shop(oltp, merchant_id=f"acct_{number}").open()
    monkeypatch.setattr("ingestion.cdc.snapshot.RANGE_BYTES", 20_000)
    with monkeypatch.context() as patch:
        publish = BatchFiles.publish

        def die_behind_a_range(files: BatchFiles, commit: Commit) -> None:
            publish(files, commit)
            if '"customers"' in commit.parameters.get("ranges", ""):
                raise KilledError

        patch.setattr(BatchFiles, "publish", die_behind_a_range)
        with pytest.raises(KilledError):
            drain()
    first = len(rows("oltp", "customers"))
    assert 0 < first < 30
    reports = drain()
    assert sum(counts.read for report in reports for counts in report.entities if counts.entity == "customers") == (
        30 - first
    )
    columns = "merchant_id, customer_id, version"
    assert latest("oltp", "customers", columns) == stored(oltp, "core.customers", columns)


def test_a_transaction_larger_than_the_memory_lands_whole(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, full_size: bool
) -> None:
    Shop(oltp).open()
    drain()
    count = 1_000_000 if full_size else 20_000
    monkeypatch.setattr("ingestion.cdc.slot.PIECE_MESSAGES", 1_000)
    monkeypatch.setattr(ChangeTables, "memory_bytes", 100_000)
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute(
            """
            insert into core.coupons (
                merchant_id, coupon_id, currency, amount_off_minor, duration, created_at, updated_at
            )
            select %s, 'co_' || number, 'EUR', number, 'once', now(), now() from generate_series(1, %s) as number
            """,
            (MERCHANT, count),
        )
    (report,) = drain()
    assert [(counts.entity, counts.accepted) for counts in report.entities] == [("coupons", count)]
    landed = rows("oltp", "coupons", "coupon_id, amount_off_minor, _position, _transaction_id")
    assert len({row["_position"] for row in landed}) == count
    assert len({row["_transaction_id"] for row in landed}) == 1
    assert sum(row["amount_off_minor"] for row in landed) == count * (count + 1) // 2


def test_a_reader_that_is_given_up_returns_nothing_and_loses_nothing(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    drain()
    shop.pay(1_000)
    target = snapshot_point(oltp).lsn
    with _reading() as reader:
        reader.give_up()
        assert reader.collect(60, 10_000, target) is None
    drain()
    assert [row["status"] for row in latest("oltp", "charges")] == ["succeeded"]


def test_a_killed_snapshot_leaves_nothing_behind(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    left = settings().raw_zone / "snapshot" / "0"
    left.mkdir(parents=True)
    (left / "charges.csv").write_text("what a killed process exported")
    drain()
    assert not left.parent.exists()


def large(seed: int) -> str:
    """Return a text that PostgreSQL keeps outside of its row: it does not compress well."""
    return "".join(Random(seed).choices("0123456789abcdef", k=9_000))  # noqa: S311 (a repeatable draw)


def renamed(connection: psycopg.Connection, name: str) -> None:
    connection.execute("update core.merchants set business_name = %s where merchant_id = %s", (name, MERCHANT))


def moved(connection: psycopg.Connection, country: str) -> None:
    connection.execute("update core.merchants set country = %s where merchant_id = %s", (country, MERCHANT))


def names_by_country() -> list[tuple[str, str, str]]:
    landed = rows("oltp", "merchants", order="_position")
    return [(row["_op"], row["country"], row["business_name"][:8]) for row in landed]


def test_no_change_gets_a_value_that_came_after_it(oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    Shop(oltp).open()
    renamed(oltp, large(1))
    oltp.execute(
        "insert into core.products (merchant_id, product_id, product_name, created_at, updated_at) "
        "values (%s, 'prod_1', %s, %s, %s)",
        (MERCHANT, large(9), NOON, NOON),
    )
    with monkeypatch.context() as patch:
        patch.setattr("ingestion.cdc.snapshot._land", _die)
        with pytest.raises(KilledError):
            drain()
    # The slot is there, the snapshot is not: the log tells what the snapshot will only find the end of.
    moved(oltp, "DE")
    renamed(oltp, large(2))
    moved(oltp, "IT")
    oltp.execute("update core.products set is_active = false")
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("delete from core.products")
    drain()
    second = large(2)[:8]
    assert names_by_country() == [("u", "DE", second), ("u", "IT", second), ("r", "IT", second)]
    assert [row["_op"] for row in rows("oltp", "products")] == ["d"]
    assert refused("oltp", "products") == []
    moved(oltp, "ES")
    drain()
    assert names_by_country()[-1] == ("u", "ES", second)


def test_no_change_gets_a_value_from_before_a_gap(oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    Shop(oltp).open()
    renamed(oltp, large(1))
    drain()
    oltp.execute("select pg_drop_replication_slot(%s)", (NAME,))
    renamed(oltp, large(2))  # nobody will ever tell of it
    resnapshot()
    moved(oltp, "DE")
    renamed(oltp, large(3))
    drain()
    third = large(3)[:8]
    assert names_by_country() == [("r", "FR", large(1)[:8]), ("u", "DE", third), ("u", "DE", third)]
    # One batch before and behind a snapshot: each change gets what held at its place.
    with monkeypatch.context() as patch:
        patch.setattr("ingestion.cdc.stream.land", _die)
        moved(oltp, "IT")
        with pytest.raises(KilledError):
            drain()
    renamed(oltp, large(4))
    land_oltp()
    moved(oltp, "ES")
    drain()
    fourth = large(4)[:8]
    assert names_by_country()[3:] == [("u", "IT", third), ("u", "IT", fourth), ("u", "IT", fourth), ("u", "ES", fourth)]


def test_a_new_life_of_a_key_gets_nothing_of_the_former_one(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    Shop(oltp).open()
    named = "insert into core.products (merchant_id, product_id, product_name, created_at, updated_at) " + (
        "values (%s, %s, %s, %s, %s)"
    )
    drain()
    oltp.execute("select pg_drop_replication_slot(%s)", (NAME,))
    oltp.execute(named, (MERCHANT, "prod_b", large(1), NOON, NOON))  # nobody will ever tell of it
    resnapshot()
    oltp.execute(named, (MERCHANT, "prod_a", "Box", NOON, NOON))
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("delete from core.products where product_id = 'prod_a'")
        oltp.execute("update core.products set product_id = 'prod_a' where product_id = 'prod_b'")
    oltp.execute("update core.products set is_active = false where product_id = 'prod_a'")
    with oltp.transaction():
        oltp.execute("set local session_replication_role = replica")
        oltp.execute("update core.products set product_id = 'prod_c' where product_id = 'prod_a'")
    drain()
    told = [(row["product_id"], row["_op"], row["product_name"]) for row in rows("oltp", "products")]
    assert {op for product, op, _ in told if product == "prod_a"} == {"c", "d"}
    assert [(op, name) for product, op, name in told if product == "prod_c"] == [("r", large(1))]


def test_ranges_of_a_snapshot_have_places_of_their_own() -> None:
    places = ((Range("charges", above="acct_m"), "2"), (Range("charges", up_to="acct_m"), "1"))
    found = Snapshots(7, places)
    assert [found.place((key, "ch_1")) for key in ("acct_a", "acct_m", "acct_n")] == ["1", "1", "2"]
    assert Snapshots().place(("acct_a",)) == ""


def test_a_server_that_refuses_says_why(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    oltp.execute("""
        select pg_create_physical_replication_slot('taken_' || n)
        from generate_series(
            1, current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots)::int
        ) as n
    """)
    try:
        with pytest.raises(UsageError, match="gives no log to read: all replication slots are in use") as refusal:
            drain()
    finally:
        oltp.execute("""
            select pg_drop_replication_slot(slot_name) from pg_replication_slots where starts_with(slot_name, 'taken_')
        """)
    assert not isinstance(refusal.value, UnreachableError), "waiting for it would be of no use"
