"""PostgreSQL is killed under traffic: what a client was told stays, what it was not told is whole or not there.

A kill takes the processes, not the machine: what the system's page cache holds survives. What is shown is that an
answer waits for its commit record to leave the process, and that recovery brings back all of it and nothing half.
"""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random, SystemRandom

import psycopg

from payments.simulation.traffic import TrafficReport, run_traffic
from payments.systems import processes
from payments.systems.oltp import server
from payments.systems.oltp.check import check
from payments.systems.oltp.connection import connect
from payments.systems.oltp.postgres import cluster

CLIENTS = 4
# Where an operation leaves an object of its own, whose id is its answer.
MADE_BY = {
    "payment_intents.create": ("core.payment_intents", "payment_intent_id"),
    "payment_intents.confirm": ("core.charges", "charge_id"),
    "payment_intents.capture": ("core.charges", "charge_id"),
    "invoices.pay": ("core.charges", "charge_id"),
    "invoices.create": ("core.invoices", "invoice_id"),
    "refunds.create": ("core.refunds", "refund_id"),
    "disputes.create": ("core.disputes", "dispute_id"),
    "topups.create": ("core.topups", "topup_id"),
    "transfers.create": ("core.transfers", "transfer_id"),
    "payouts.create": ("core.payouts", "payout_id"),
    "credit_notes.create": ("core.credit_notes", "credit_note_id"),
    "subscriptions.create": ("core.subscriptions", "subscription_id"),
}
# These come from one operation only: an object more than answers is an effect without an answer, or twice.
ONCE = ("refunds.create", "disputes.create", "topups.create", "transfers.create", "payouts.create", "invoices.create")


def test_what_was_acknowledged_survives_kill_9(own_server: Path, full_size: bool) -> None:
    rounds = 20 if full_size else 5
    seed = int(os.environ.get("PAYMENTS_FAULT_SEED") or SystemRandom().randrange(10**6))
    print(f"{rounds} kills ({'full size' if full_size else 'CI size: 20 at full size'}), PAYMENTS_FAULT_SEED={seed}")
    draw = Random(seed)  # noqa: S311 (a repeatable draw)
    seen = TrafficReport()
    for number in range(rounds):
        told = crash_under_traffic(draw, seed)
        assert told.acknowledged, "nothing was paid in this round: the kill proves nothing"
        seen.add(told)
        with connect(autocommit=True) as connection:
            assert lost(connection, seen.acknowledged) == [], f"lost in round {number}"
            assert unanswered(connection, seen) == [], f"answers forgotten in round {number}"
            assert halves(connection) == [], f"half a payment after round {number}"
            assert effects_astray(connection) == [], f"answer without effect, or the reverse, after round {number}"
            connection.execute("select ledger.seal()")
        assert told.differing == []
        assert told.errors == []
    assert [result for result in check() if not result.passed] == []
    print(f"{len(seen.acknowledged):,} acknowledged payments, {dict(seen.counts)}")


def test_loss_is_noticed(own_server: Path) -> None:
    """The comparisons above can fail: a charge that was never made, and one whose posting is taken away."""
    told = run_traffic(tps=0, seconds=1, clients=2, seed=1)
    merchant_id, charge_id = told.acknowledged[0]
    with connect() as connection:
        assert lost(connection, [(merchant_id, "ch_never"), (merchant_id, charge_id)]) == [(merchant_id, "ch_never")]
        connection.execute("set local session_replication_role = replica")
        connection.execute("delete from ledger.transactions where source_id = %s", (charge_id,))
        connection.execute("delete from core.topups where topup_id <> ''")
        assert lost(connection, [(merchant_id, charge_id)]) == [(merchant_id, charge_id)]
        assert halves(connection) == [(merchant_id, charge_id)]
        assert ("topups.create", "answer without effect") in {
            (what, why) for what, why, _ in effects_astray(connection)
        }
        connection.rollback()


def crash_under_traffic(draw: Random, seed: int) -> TrafficReport:
    """Kill the server at a random moment, start it, let the clients come back, and return what they were told."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        traffic = pool.submit(run_traffic, tps=0, seconds=120, clients=CLIENTS, seed=seed, stop=stop)
        try:
            wait_for(lambda: traffic.done() or clients_connected() >= CLIENTS)
            stop.wait(draw.uniform(0.2, 1.2))
            kill_all()
            server.start()
            wait_for(lambda: traffic.done() or clients_connected() >= CLIENTS)
            stop.wait(draw.uniform(0.1, 0.5))
        finally:
            stop.set()
        return traffic.result(timeout=60)


def clients_connected() -> int:
    with connect(autocommit=True) as connection:
        row = connection.execute(
            "select count(*) from pg_stat_activity where application_name = 'payments' and query like '%api.call%'"
        ).fetchone()
    return 0 if row is None else row[0] - 1


def wait_for(condition: Callable[[], bool]) -> None:
    assert processes.wait_until(condition, 60), "the traffic did not come (back) within a minute"


def kill_all() -> None:
    """Kill the postmaster and its children at once. Each child leads a process group of its own: they are looked up."""
    running = cluster().postmaster()
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)  # it must not start a child between the look and the kill
    command = ["ps", "-A", "-o", "pid=,ppid="]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in listed.splitlines()]
    children = [int(pid) for pid, parent in pairs if int(parent) == running.pid]
    assert children
    for pid in (running.pid, *children):
        os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: processes.command_line(running.pid) is None, 30)


def lost(connection: psycopg.Connection, acknowledged: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The acknowledged charges that lack their row, balance transaction, balanced posting, or event."""
    return connection.execute(
        """
        select a.merchant_id, a.charge_id
        from unnest(%s::text [], %s::text []) as a (merchant_id, charge_id)
        where
            not exists (
                select from core.charges as c
                where c.merchant_id = a.merchant_id and c.charge_id = a.charge_id and c.status = 'succeeded'
            )
            or not exists (
                select from core.balance_transactions as b
                where b.merchant_id = a.merchant_id and b.type = 'charge' and b.source_id = a.charge_id
            )
            or (
                select sum(case e.side when 'D' then e.amount_minor else -e.amount_minor end)
                from ledger.transactions as t
                inner join ledger.entries as e
                    on t.merchant_id = e.merchant_id and t.ledger_transaction_id = e.ledger_transaction_id
                where t.merchant_id = a.merchant_id and t.kind = 'charge' and t.source_id = a.charge_id
            ) is distinct from 0
            or not exists (
                select from ops.outbox as o
                where o.merchant_id = a.merchant_id and o.object_id = a.charge_id and o.event_type = 'charge.succeeded'
            )
        """,
        ([merchant for merchant, _ in acknowledged], [charge for _, charge in acknowledged]),
    ).fetchall()


def halves(connection: psycopg.Connection) -> list[tuple[str, str]]:
    """The charges of which some but not all of row, balance transaction, posting and event are there."""
    return connection.execute(
        """
        with
        parts as (
            select merchant_id, charge_id from core.charges where status = 'succeeded'
            union all
            select merchant_id, source_id from core.balance_transactions where type = 'charge'
            union all
            select merchant_id, source_id from ledger.transactions where kind = 'charge'
            union all
            select merchant_id, object_id from ops.outbox where event_type = 'charge.succeeded'
        )

        select merchant_id, charge_id
        from parts
        group by merchant_id, charge_id
        having count(*) <> 4
        """
    ).fetchall()


def unanswered(connection: psycopg.Connection, seen: TrafficReport) -> list[str]:
    """The keys of answers that clients got and the store does not know, or knows with another answer."""
    stored = {
        key: (response["status"], response["id"], response["failure_code"])
        for key, response in connection.execute("select idempotency_key, response from ops.idempotency_keys")
    }
    return [
        told.idempotency_key
        for told in seen.answered
        if stored.get(told.idempotency_key) != (told.answer.status, told.answer.id, told.answer.failure_code)
    ]


def effects_astray(connection: psycopg.Connection) -> list[tuple[str, str, int]]:
    """Operations with stored answers whose object is not there, or with more objects than answers, and how many."""
    found = []
    for operation, (table, key) in MADE_BY.items():
        without = _count(
            connection,
            f"""
            select count(*) from ops.idempotency_keys as k
            where k.operation = %(operation)s and k.response ->> 'id' is not null and not exists (
                select from {table} as t where t.merchant_id = k.merchant_id and t.{key} = k.response ->> 'id'
            )
            """,
            operation,
        )
        if without:
            found.append((operation, "answer without effect", without))
        if operation in ONCE:
            beyond = _count(
                connection,
                f"""
                select count(*) from {table} as t
                where (
                    select count(*) from ops.idempotency_keys as k
                    where k.merchant_id = t.merchant_id
                        and k.operation = %(operation)s
                        and k.response ->> 'id' = t.{key}
                ) <> 1
                    and not (%(operation)s = 'invoices.create' and to_jsonb(t) ->> 'billing_reason' <> 'manual')
                """,
                operation,
            )
            if beyond:
                found.append((operation, "effect without one answer", beyond))
    return found


def _count(connection: psycopg.Connection, query: str, operation: str) -> int:
    row = connection.execute(query.encode(), {"operation": operation}).fetchone()
    assert row is not None
    count: int = row[0]
    return count
