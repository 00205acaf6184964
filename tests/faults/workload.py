"""Random transactions on the operational store, and a record of what they committed that the log has no part in.

The record is kept by triggers (``simulator.history``): a row each change of a row, in the order in which its row was
locked, gone with a transaction that is rolled back, and back where a restore brings the store. So it says what the log
must tell, whoever changed the row, and however the transaction ended.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from ingestion.contracts import entities
from ingestion.oltp import table_of
from tests.systems.shop import MERCHANT, NOON, Shop

LARGE = 9_000
"""Characters of a text that does not compress and is therefore kept outside of its row."""

_RECORD = """
create schema simulator;

create table simulator.history (
    n bigint generated always as identity primary key,
    entity text not null,
    before jsonb,
    after jsonb,
    is_excused boolean not null default false
);

create function simulator.record() returns trigger
language plpgsql
as $$
begin
    insert into simulator.history (entity, before, after)
    values (
        tg_argv[0],
        case when tg_op in ('UPDATE', 'DELETE') then to_jsonb(old) end,
        case when tg_op in ('UPDATE', 'INSERT') then to_jsonb(new) end
    );
    return null;
end
$$;
"""


@dataclass(frozen=True)
class Event:
    """A committed change of a row (``before``, ``after``: its values), or the truncation of its table (neither)."""

    n: int
    entity: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    is_excused: bool = False
    """Whether the log need not tell it: a row that a change of its table changed."""


def record_history(connection: psycopg.Connection) -> None:
    """Let triggers record every change of the tables of the contract, from what they hold now."""
    connection.execute(_RECORD)
    for entity in entities("oltp").values():
        table = sql.Identifier(*table_of(entity))
        name = sql.Literal(entity.name)
        connection.execute(
            sql.SQL("insert into simulator.history (entity, after) select {}, to_jsonb(t) from {} as t").format(
                name, table
            )
        )
        for label, events, level in (
            ("recorded", "insert or update or delete", "row"),
            ("emptied", "truncate", "statement"),
        ):
            connection.execute(
                sql.SQL("create trigger {} after {} on {} for each {} execute function simulator.record({})").format(
                    sql.Identifier(label), sql.SQL(events), table, sql.SQL(level), name
                )
            )
            connection.execute(  # also for a session that steps over the guards of the schema
                sql.SQL("alter table {} enable always trigger {}").format(table, sql.Identifier(label))
            )


def record_anew(connection: psycopg.Connection, table: str) -> None:
    """Record the rows of a table that was altered: a snapshot may find them so, the log tells nothing."""
    connection.execute(
        f"""
        insert into simulator.history (entity, before, after, is_excused)
        select %s, to_jsonb(t), to_jsonb(t), true from {table} as t
        """.encode(),
        (table.removeprefix("core."),),
    )


def history(connection: psycopg.Connection) -> list[Event]:
    """Return what is committed by now, in an order that is right for each row."""
    found = connection.execute(
        "select n, entity, before::text, after::text, is_excused from simulator.history order by n"
    ).fetchall()
    return [Event(n, entity, _parsed(before), _parsed(after), excused) for n, entity, before, after, excused in found]


def _parsed(text: str | None) -> dict[str, Any] | None:
    found: dict[str, Any] | None = None if text is None else json.loads(text, parse_float=Decimal)
    return found


@dataclass
class Workload:
    """A writer of random transactions over several connections; ``dsn`` is the store, ``draw`` decides everything."""

    dsn: str
    draw: Random
    transactions: int = 0
    _connection: psycopg.Connection | None = None
    _long: psycopg.Connection | None = None
    _made: int = 0
    _charges: list[str] = field(default_factory=list)

    def burst(self, count: int) -> None:
        """Commit transactions, most of them of several changes; now and then one stays open among the others."""
        for _ in range(count):
            self._transaction()
            if self.draw.random() < 0.15:
                self._long_transaction()

    def end_long_transaction(self) -> None:
        """Commit or roll back what is open."""
        if self._long is not None:
            with suppress(psycopg.Error):  # its server may be gone
                (self._long.commit if self.draw.random() < 0.7 else self._long.rollback)()
            self._long.close()
            self._long = None

    def close(self) -> None:
        """Close the connections; what is open is rolled back."""
        for connection in (self._connection, self._long):
            if connection is not None:
                connection.close()
        self._connection = self._long = None

    def mark(self) -> int:
        """Commit a change and return a place of the log that stands before it and after all that was committed."""
        connection = self._connected()
        row = connection.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone()
        assert row is not None
        with connection.transaction():
            connection.execute("update core.currencies set currency_name = %s where currency = 'XAF'", (self._id("m"),))
        return int(row[0])

    def _connected(self) -> psycopg.Connection:
        if self._connection is None or self._connection.broken or self._connection.closed:
            self._connection = self._connect()
            self._connection.autocommit = True
        return self._connection

    def _connect(self) -> psycopg.Connection:
        options = "-c timezone=UTC -c lock_timeout=100ms -c client_min_messages=error"
        return psycopg.connect(self.dsn, options=options, application_name="workload")

    def _transaction(self) -> None:
        connection = self._connected()
        self.transactions += 1
        # A lock that a long transaction holds, or a key that it took: rolled back, as an application would.
        refused = (psycopg.errors.LockNotAvailable, psycopg.errors.UniqueViolation)
        with suppress(*refused, _GivenUpError), connection.transaction():
            for _ in range(self.draw.choice((1, 1, 1, 2, 3))):
                self._change(connection)
            if self.draw.random() < 0.08:
                raise _GivenUpError

    def _long_transaction(self) -> None:
        """Go on in a transaction that others commit around, or end it."""
        if self._long is not None and (self._long.broken or self.draw.random() < 0.5):
            self.end_long_transaction()
            return
        if self._long is None:
            self._long = self._connect()
            self._long.execute("select 1")  # begins it: what follows are savepoints
        try:
            with self._long.transaction():
                self._change(self._long, is_long=True)
        except psycopg.Error:
            self._long.close()
            self._long = None

    def _change(self, connection: psycopg.Connection, *, is_long: bool = False) -> None:
        if self.draw.random() < 0.12:
            with suppress(_GivenUpError), connection.transaction():  # a savepoint that is rolled back
                self._drawn(is_long)(connection)
                raise _GivenUpError
        self._drawn(is_long)(connection)

    def _drawn(self, is_long: bool) -> Callable[[psycopg.Connection], None]:
        kinds: dict[Callable[[psycopg.Connection], None], int] = {
            self._insert: 6,
            self._update: 8,
            self._update_thrice: 3,
            self._leave_as_it_is: 2,
            self._grow: 5,
            self._delete: 4,
            self._rekey: 3,
            self._replace: 2,
            self._swap: 1,
            self._copy: 1,
            self._touch_all: 1,
            self._move: 1,
        }
        if not is_long:  # these lock what everybody needs
            kinds |= {self._pay: 2, self._empty: 1}
        return self.draw.choices(list(kinds), list(kinds.values()))[0]

    def _id(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}{self.draw.randrange(16**6):06x}{self._made}"

    def _large(self) -> str:
        return self.draw.randbytes(LARGE // 2).hex()

    def _one(self, connection: psycopg.Connection, table: str, key: str) -> str | None:
        """Lock a row that nobody else has locked and return its key; nothing when there is none."""
        query = f"select {key} from core.{table} where merchant_id = %s order by 1 for no key update skip locked"
        rows = connection.execute(query.encode(), (MERCHANT,)).fetchall()
        return str(self.draw.choice(rows)[0]) if rows else None

    def _insert(self, connection: psycopg.Connection) -> None:
        self.draw.choice((self._product, self._product, self._coupon, self._customer, self._setup))(connection)

    def _product(self, connection: psycopg.Connection, product_id: str | None = None) -> None:
        name = self._large() if self.draw.random() < 0.4 else "Box"
        connection.execute(
            "insert into core.products (merchant_id, product_id, product_name, created_at, updated_at) "
            "values (%s, %s, %s, %s, %s)",
            (MERCHANT, product_id or self._id("prod_"), name, NOON, NOON),
        )

    def _coupon(self, connection: psycopg.Connection) -> None:
        Shop(connection).coupon(self.draw.randint(1, 9_000), coupon_id=self._id("co_"))

    def _customer(self, connection: psycopg.Connection) -> None:
        connection.execute(
            """
            insert into core.customers (
                merchant_id, customer_id, merchant_token, network_token, country, city, email_domain,
                has_marketing_consent, consent_at, retention_until, created_at, updated_at
            )
            values (%s, %s, 'mt', 'nt', 'FR', 'Lyon', 'example.org', false, %s, '2030-01-01', %s, %s)
            """,
            (MERCHANT, self._id("cus_"), NOON, NOON, NOON),
        )

    def _setup(self, connection: psycopg.Connection) -> None:
        connection.execute(
            """
            insert into core.setup_intents (merchant_id, setup_intent_id, customer_id, status, created_at, updated_at)
            values (%s, %s, 'cus_ada', 'processing', %s, %s)
            """,
            (MERCHANT, self._id("seti_"), NOON, NOON),
        )

    def _update(self, connection: psycopg.Connection) -> None:
        table, key, change = self.draw.choice(
            (
                ("products", "product_id", "is_active = not is_active"),
                ("products", "product_id", "updated_at = updated_at + interval '1 second'"),
                ("coupons", "coupon_id", f"percent_off_basis_points = {self.draw.randint(1, 9_000)}"),
                ("customers", "customer_id", f"city = 'City {self.draw.randint(1, 99)}'"),
                ("setup_intents", "setup_intent_id", "payment_method_id = 'pm_ada'"),
                ("merchants", "merchant_id", f"fee_fixed_minor = {self.draw.randint(1, 99)}"),
            )
        )
        if (found := self._one(connection, table, key)) is not None:
            connection.execute(
                f"update core.{table} set {change} where merchant_id = %s and {key} = %s".encode(), (MERCHANT, found)
            )

    def _update_thrice(self, connection: psycopg.Connection) -> None:
        if (found := self._one(connection, "products", "product_id")) is not None:
            for step in range(3):
                connection.execute(
                    "update core.products set updated_at = %s where merchant_id = %s and product_id = %s",
                    (NOON.replace(minute=self.draw.randint(0, 59), second=step), MERCHANT, found),
                )

    def _leave_as_it_is(self, connection: psycopg.Connection) -> None:
        with _unguarded(connection):  # or the version would grow
            connection.execute(
                "update core.customers set city = city where merchant_id = %s and customer_id = 'cus_ada'", (MERCHANT,)
            )

    def _grow(self, connection: psycopg.Connection) -> None:
        table, key, column = self.draw.choice(
            (("products", "product_id", "product_name"), ("merchants", "merchant_id", "business_name"))
        )
        if (found := self._one(connection, table, key)) is not None:
            connection.execute(
                f"update core.{table} set {column} = %s where merchant_id = %s and {key} = %s".encode(),
                (self._large(), MERCHANT, found),
            )

    def _delete(self, connection: psycopg.Connection) -> None:
        table, key = self.draw.choice(
            (("products", "product_id"), ("coupons", "coupon_id"), ("setup_intents", "setup_intent_id"))
        )
        if (found := self._one(connection, table, key)) is not None:
            with _unguarded(connection):
                connection.execute(
                    f"delete from core.{table} where merchant_id = %s and {key} = %s".encode(), (MERCHANT, found)
                )

    def _rekey(self, connection: psycopg.Connection) -> None:
        """Change a key, half of the time of a row whose large value stays."""
        table, key, prefix = self.draw.choice((("products", "product_id", "prod_"), ("coupons", "coupon_id", "co_")))
        if (found := self._one(connection, table, key)) is not None:
            with _unguarded(connection):
                connection.execute(
                    f"update core.{table} set {key} = %s where merchant_id = %s and {key} = %s".encode(),
                    (self._id(prefix), MERCHANT, found),
                )

    def _replace(self, connection: psycopg.Connection) -> None:
        """Delete a row and make another one under its key."""
        if (found := self._one(connection, "products", "product_id")) is not None:
            with _unguarded(connection):
                connection.execute(
                    "delete from core.products where merchant_id = %s and product_id = %s", (MERCHANT, found)
                )
            self._product(connection, found)

    def _swap(self, connection: psycopg.Connection) -> None:
        """Let two rows exchange their keys."""
        one, other = self._one(connection, "products", "product_id"), self._one(connection, "products", "product_id")
        if one is None or other is None or one == other:
            return
        aside = self._id("prod_")
        with _unguarded(connection):
            for old, new in ((one, aside), (other, one), (aside, other)):
                connection.execute(
                    "update core.products set product_id = %s where merchant_id = %s and product_id = %s",
                    (new, MERCHANT, old),
                )

    def _copy(self, connection: psycopg.Connection) -> None:
        """Write many rows with one COPY: they share a place of the log."""
        columns = "merchant_id, product_id, product_name, created_at, updated_at"
        with connection.cursor().copy(f"copy core.products ({columns}) from stdin".encode()) as copy:
            for _ in range(self.draw.choice((3, 40, 120))):
                copy.write_row((MERCHANT, self._id("prod_"), "Copied", NOON, NOON))

    def _touch_all(self, connection: psycopg.Connection) -> None:
        """Change every row of a table in one statement: a transaction of many changes."""
        with _unguarded(connection):
            connection.execute(
                "update core.products set updated_at = updated_at + interval '1 hour', version = version + 1"
            )

    def _move(self, connection: psycopg.Connection) -> None:
        """Let a row go to another merchant, and thereby to another partition."""
        if (found := self._one(connection, "setup_intents", "setup_intent_id")) is not None:
            with _unguarded(connection):
                connection.execute(
                    "update core.setup_intents set merchant_id = %s where merchant_id = %s and setup_intent_id = %s",
                    (f"acct_{self.draw.randrange(50)}", MERCHANT, found),
                )

    def _empty(self, connection: psycopg.Connection) -> None:
        """Truncate, alone or with more of the table's changes around it."""
        table, insert = self.draw.choice((("coupons, core.discounts", self._coupon), ("setup_intents", self._setup)))
        if self.draw.random() < 0.5:
            insert(connection)
        with _unguarded(connection):
            connection.execute(f"truncate core.{table}".encode())
        if self.draw.random() < 0.5:
            insert(connection)

    def _pay(self, connection: psycopg.Connection) -> None:
        """Pay or refund through the functions of the store: a transaction over many tables."""
        shop = Shop(connection).later(seconds=self._made)
        charge = self._id("ch_")
        shop.pay(self.draw.randint(100, 9_000), charge_id=charge, intent_id=self._id("pi_"))
        if self.draw.random() < 0.3:
            shop.refund(charge, refund_id=self._id("re_"))


class _GivenUpError(Exception):
    """Rolls a transaction or a savepoint back."""


class _unguarded:  # noqa: N801 (used as a statement)
    """Lets a transaction step over the triggers that forbid what only an operator does."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("set local session_replication_role = replica")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._connection.execute("set local session_replication_role = origin")
