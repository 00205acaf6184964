"""What a payment leaves behind in the operational store: bytes of each table with its indexes.

    python benchmarks/footprint.py [--payments N] [--merchants M]

Makes a database of its own on the server of the settings (run payments up first), lets N payments through the SQL
functions (intent, charge, balance transaction, ledger, event, audit), one commit a payment, and drops it again.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from rich.console import Console
from rich.table import Table

from payments.settings import settings
from payments.systems.oltp.connection import connect, dsn
from payments.systems.oltp.migrations import migrate
from payments.systems.oltp.partitions import create_months

SCRATCH = "footprint"
_SIZES = """
select coalesce(pg_partition_root(c.oid)::regclass::text, c.oid::regclass::text), sum(pg_table_size(c.oid)),
    sum(pg_indexes_size(c.oid))
from pg_class as c
inner join pg_namespace as n on c.relnamespace = n.oid
where n.nspname in ('core', 'ledger', 'ops') and c.relkind = 'r'
group by 1
"""
_PAYMENT = """
select core.confirm_payment_intent(
    %s, core.create_payment_intent(%s, %s, 5000, 'EUR', %s), p_ip_country => 'FR', p_ip_city => 'Lyon',
    p_ip_network_token => 'a8f5f167f44f4964e6c998dee827110c', p_device_id => 'dev_1', p_device_type => 'mobile',
    p_anomaly_score => 0.1
)
"""


def main() -> None:
    """Make the payments and print what each left, by table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--payments", type=int, default=20_000)
    parser.add_argument("--merchants", type=int, default=100)
    arguments = parser.parse_args()
    with _scratch() as connection:
        _open(connection, arguments.merchants)
        before = _sizes(connection)
        _pay(connection, arguments.payments, arguments.merchants)
        after = _sizes(connection)
    table = Table(title=f"Bytes a payment, of {arguments.payments:,} at {arguments.merchants:,} merchants")
    for name in ("table", "rows and toast", "indexes", "together"):
        table.add_column(name, justify="left" if name == "table" else "right")
    grown = {
        name: [(now - then) / arguments.payments for now, then in zip(sizes, before[name], strict=True)]
        for name, sizes in after.items()
    }
    for name, (heap, indexes) in sorted(grown.items(), key=lambda item: -sum(item[1])):
        if heap + indexes >= 1:
            table.add_row(name, f"{heap:,.0f}", f"{indexes:,.0f}", f"{heap + indexes:,.0f}")
    heap, indexes = (sum(part) for part in zip(*grown.values(), strict=True))
    table.add_row("all", f"{heap:,.0f}", f"{indexes:,.0f}", f"{heap + indexes:,.0f}")
    Console().print(table)


@contextmanager
def _scratch() -> Iterator[psycopg.Connection]:
    """A connection (autocommit) to a migrated database of its own, dropped at the end."""
    with connect(autocommit=True, dbname="postgres") as administration:
        administration.execute(f"drop database if exists {SCRATCH}".encode())
        administration.execute(f"create database {SCRATCH}".encode())
        try:
            os.environ["PAYMENTS_OLTP_DSN"] = dsn(SCRATCH)
            settings.cache_clear()
            migrate()
            create_months()
            with connect(autocommit=True) as connection:
                yield connection
        finally:
            administration.execute(f"drop database {SCRATCH} with (force)".encode())


def _open(connection: psycopg.Connection, merchants: int) -> None:
    """Make the merchants, each with ten customers who have a card."""
    connection.execute(
        """
        insert into core.merchants (
            merchant_id, business_name, mcc, country, default_currency, created_at, updated_at
        )
        select 'acct_m' || m, 'Merchant ' || m, '5812', 'FR', 'EUR', now(), now()
        from generate_series(0, %s - 1) as m
        """,
        (merchants,),
    )
    connection.execute(
        """
        insert into core.customers (
            merchant_id, customer_id, merchant_token, network_token, country, city, email_domain,
            has_marketing_consent, consent_at, retention_until, created_at, updated_at
        )
        select m.merchant_id, 'cus_' || c, 'mt', 'nt', 'FR', 'Lyon', 'example.org', true, now(), '2040-01-01', now(),
            now()
        from core.merchants as m, generate_series(0, 9) as c
        """
    )
    connection.execute(
        """
        insert into core.payment_methods (
            merchant_id, payment_method_id, customer_id, type, brand, last4, exp_month, exp_year, funding,
            issuer_country, fingerprint, created_at, updated_at
        )
        select c.merchant_id, replace(c.customer_id, 'cus', 'pm'), c.customer_id, 'card', 'visa', '4242', 12, 2040,
            'credit', 'FR', md5(c.customer_id), now(), now()
        from core.customers as c
        """
    )


def _pay(connection: psycopg.Connection, payments: int, merchants: int) -> None:
    """Make the payments, one after the other."""
    for number in range(payments):
        merchant, person = f"acct_m{number % merchants}", number // merchants % 10
        connection.execute(_PAYMENT, (merchant, merchant, f"cus_{person}", f"pm_{person}"))


def _sizes(connection: psycopg.Connection) -> dict[str, tuple[int, int]]:
    return {name: (int(heap), int(indexes)) for name, heap, indexes in connection.execute(_SIZES)}


if __name__ == "__main__":
    main()
