"""Every documented query is answered by the index that it names, and every index is needed by one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import psycopg
import pytest

from payments.queries.operational import OperationalQuery, operational_queries
from payments.systems.oltp.connection import connect
from tests.conftest import Servers, empty_oltp
from tests.systems.two_merchants import OURS, open_two_merchants

ROWS, MERCHANTS = 3_000, 16
# Columns that stay unique though the key of their table does not name them.
_UNIQUE = {"source_id", "core.charges.payment_intent_id", "core.application_fees.charge_id"}


QUERIES = operational_queries()


@pytest.fixture(scope="module")
def store(servers: Servers) -> Iterator[psycopg.Connection]:
    """A store with enough rows that an index is worth its while: what one merchant has, many times."""
    with connect(autocommit=True) as connection:
        assert connection.info.port == servers.oltp_port
        empty_oltp(connection)
        open_two_merchants(connection)
        connection.execute("select ops.ensure_months('2026-03-01', '2026-05-01')")
        connection.execute("set session_replication_role = replica")
        for table in sorted({query.table for query in QUERIES}):
            _multiply(connection, table)
        connection.execute("reset session_replication_role")
        yield connection


def _multiply(connection: psycopg.Connection, table: str) -> None:
    """Repeat the rows of a merchant under other merchants, ids and times; keys stay unique, references do not hold."""
    columns = connection.execute(
        """
        select
            a.attname::text,
            format_type(a.atttypid, a.atttypmod),
            exists (
                select from pg_index as i where i.indrelid = a.attrelid and i.indisprimary and a.attnum = any(i.indkey)
            )
        from pg_attribute as a
        where a.attrelid = %s::regclass and a.attnum > 0 and a.attidentity = ''
        order by a.attnum
        """,
        (table,),
    ).fetchall()
    expressions = [_again(table, name, kind, in_key) for name, kind, in_key in columns]
    connection.execute(
        f"""
        insert into {table} ({", ".join(name for name, _, _ in columns)})
        select {", ".join(expressions)}
        from generate_series(1, greatest({ROWS} / (select count(*) from {table} where merchant_id = '{OURS}'), 1)) as n
        cross join (select * from {table} where merchant_id = '{OURS}') as s
        order by n
        """.encode()
    )
    connection.execute(f"analyze {table}".encode())


def _again(table: str, column: str, kind: str, in_key: bool) -> str:
    by_kind = {
        "uuid": "md5(n::text)::uuid",
        "xid8": "n::text::xid8",
        "timestamp with time zone": f"s.{column} + n * interval '1 minute'",
        "date": f"s.{column} + n::integer % 300",
    }
    if column.endswith("merchant_id"):
        return f"'acct_plan' || (n + {len(column) - len('merchant_id')}) % {MERCHANTS}"
    if kind in by_kind:
        return by_kind[kind]
    if column.endswith(("_id", "_key", "_token")) or column == "fingerprint":
        is_unique = in_key or not _UNIQUE.isdisjoint({column, f"{table}.{column}"})
        return f"s.{column} || 'x' || {'n' if is_unique else 'n % 800'}"
    return "n" if column == "account_entry_no" else f"s.{column}"


# The moments of a query lie shortly after the earliest of the column that it compares with them.
_MOMENT = re.compile(r"(\w+) <=? :'(?:until|end_of_month|day)'")


def _given(connection: psycopg.Connection, query: OperationalQuery) -> dict[str, object]:
    """Return values for the parameters: of columns, those of some row; moments at the start of what the rows span."""
    given: dict[str, object] = {"first_xid": "100", "last_xid": "200"}
    moment = _MOMENT.search(query.text)
    if moment is not None:
        row = connection.execute(f"select min({moment[1]}) from {query.table}".encode()).fetchone()
        assert row is not None
        given |= {
            "since": row[0],
            "until": row[0] + timedelta(hours=1),
            "end_of_month": row[0] + timedelta(hours=1),
            "day": row[0] + timedelta(days=5),
        }
    columns = [name for name in query.parameters if name not in given]
    if not columns:
        return given
    row = connection.execute(
        f"""
        select {", ".join(f"{name}::text" for name in columns)} from {query.table}
        where merchant_id = 'acct_plan3' and num_nulls({", ".join(columns)}) = 0
        limit 1
        """.encode()
    ).fetchone()
    assert row is not None
    return given | dict(zip(columns, row, strict=True))


@dataclass(frozen=True)
class Plan:
    """What a plan reads: indexes by the name they were declared under, and relations (partitions) it touches."""

    indexes: set[str]
    relations: set[str]
    sequential: set[str]


def _plan(connection: psycopg.Connection, query: OperationalQuery) -> Plan:
    with psycopg.ClientCursor(connection) as cursor:
        row = cursor.execute(
            f"explain (format json, verbose) {query.bindable}".encode(), _given(connection, query)
        ).fetchone()
    assert row is not None
    nodes = list(_nodes(row[0][0]["Plan"]))
    roots = connection.execute(
        """
        with recursive up as (
            select c.oid, c.oid as root from pg_class as c where c.relname = any(%s)
            union all
            select up.oid, i.inhparent from up inner join pg_inherits as i on up.root = i.inhrelid
        )

        select format('%%I.%%I', n.nspname, c.relname)
        from up
        inner join pg_class as c on up.root = c.oid
        inner join pg_namespace as n on c.relnamespace = n.oid
        where not c.relispartition
        """,
        ([node["Index Name"] for node in nodes if "Index Name" in node],),
    ).fetchall()
    read = {
        (f"{node['Schema']}.{node['Relation Name']}", node["Node Type"]) for node in nodes if "Relation Name" in node
    }
    return Plan(
        {name for (name,) in roots},
        {name for name, _ in read},
        {name for name, kind in read if kind == "Seq Scan"},
    )


def _nodes(node: dict[str, object]) -> Iterator[dict[str, str]]:
    yield {key: value for key, value in node.items() if isinstance(value, str)}
    children = node.get("Plans", [])
    assert isinstance(children, list)
    for child in children:
        yield from _nodes(child)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_a_query_uses_its_index(store: psycopg.Connection, query: OperationalQuery) -> None:
    plan = _plan(store, query)
    assert query.index in plan.indexes, plan
    # A partition of a few rows is rightly read whole.
    large = {n for n in plan.sequential if store.execute(f"select 1 from {n} offset 100 limit 1".encode()).fetchone()}
    assert not {name for name in large if name.startswith(query.table)}
    of_table = {name for name in plan.relations if re.fullmatch(rf"{query.table}(_p\d+|_\d{{4}}_\d\d|_default)?", name)}
    is_hashed = store.execute(
        "select partstrat = 'h' from pg_partitioned_table where partrelid = %s::regclass", (query.table,)
    ).fetchone()
    if (is_hashed == (True,) and "merchant_id" in query.parameters) or "within one month" in query.purpose:
        assert len(of_table) == 1, plan


def test_every_index_is_needed(store: psycopg.Connection) -> None:
    declared = {
        name
        for (name,) in store.execute(
            """
            select format('%I.%I', n.nspname, i.relname)
            from pg_index as x
            inner join pg_class as i on x.indexrelid = i.oid
            inner join pg_namespace as n on i.relnamespace = n.oid
            where n.nspname in ('core', 'ledger', 'identity', 'ops', 'vault', 'rules')
                and not i.relispartition
                and not x.indisunique -- these keep a rule
                and not exists (
                    select from pg_class as t
                    where t.oid = x.indrelid and t.relispartition
                )
            """
        )
    }
    assert declared <= {query.index for query in QUERIES}
    assert len({query.name for query in QUERIES}) == len(QUERIES) > 40
    print(f"{len(QUERIES)} queries, {len(declared)} indexes")


def test_the_policy_of_a_merchant_is_served_by_its_index(store: psycopg.Connection) -> None:
    """An application that names no merchant reads one partition by its index all the same."""
    with store.transaction(force_rollback=True):
        store.execute("set local role payments_app")
        store.execute("set local app.merchant_id = 'acct_plan3'")
        row = store.execute(
            "explain (format json, verbose, analyze) select * from core.charges order by created_at desc limit 10"
        ).fetchone()
    assert row is not None
    nodes = list(_nodes(row[0][0]["Plan"]))
    assert len([node for node in nodes if "Relation Name" in node]) == 1
    assert all("created_at" in node["Index Name"] for node in nodes if "Relation Name" in node)
