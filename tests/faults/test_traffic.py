"""Live traffic: what clients are told is what is there, a repetition is recognized, and the command reports it."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT
from payments.simulation.traffic import percentile, run_traffic
from payments.systems.oltp.connection import connect


def test_clients_are_told_what_happened(own_server: Path) -> None:
    looked_for = {"acknowledged", "declined", "crashes", "retried", "duplicates", "replayed"}
    report = run_traffic(tps=0, seconds=3, clients=3, seed=5)
    for seed in range(6, 16):  # a busy machine answers few requests in three seconds
        if looked_for <= (+report.counts).keys():
            break
        report.add(run_traffic(tps=0, seconds=3, clients=3, seed=seed))
    assert report.errors == []
    assert report.differing == []
    assert looked_for <= (+report.counts).keys()
    with connect(autocommit=True) as connection:
        succeeded = set(
            connection.execute("select merchant_id, charge_id from core.charges where status = 'succeeded'").fetchall()
        )
        refunds = set(connection.execute("select merchant_id, refund_id from core.refunds").fetchall())
        actors = connection.execute("select distinct actor from ops.audit_log where request_id <> 'opening'").fetchall()
    assert set(report.acknowledged) <= succeeded
    assert len(report.acknowledged) == len(set(report.acknowledged)) > 0
    assert set(report.acknowledged_ids("refunds.create")) <= refunds
    assert actors == [("traffic",)]
    operation, answers, *_ = list(report.rows())[-1]
    assert (operation, answers) == ("all", report.counts["acknowledged"] + report.counts["declined"])


def test_the_rate_is_kept_and_stop_ends_it(own_server: Path) -> None:
    report = run_traffic(tps=40, seconds=1.5, clients=2, seed=5)
    assert report.counts["requests"] <= 1.5 * 40 + 2
    stop = threading.Event()
    stop.set()
    assert run_traffic(tps=40, seconds=60, clients=2, seed=5, stop=stop).counts["requests"] == 0


def test_another_answer_to_a_repetition_fails_the_command(own_server: Path) -> None:
    with connect(autocommit=True) as connection:
        connection.execute("alter function api.call rename to call_once")
        connection.execute(
            """
            create function api.call(m text, k text, o text, p jsonb) returns jsonb
            language sql security definer
            return api.call_once(m, k || clock_timestamp(), o, p)
            """
        )
        connection.execute("grant execute on function api.call to payments_app")
        try:
            broken = traffic()
        finally:
            connection.execute("drop function api.call")
            connection.execute("alter function api.call_once rename to call")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert "replayed False" in broken.stdout
    whole = traffic()
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "p99 ms" in whole.stdout
    assert "acknowledged" in whole.stdout


def test_a_store_without_schema_is_one_line(own_server: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(dbname="postgres") as connection:
        assert connection.info.dbname == "postgres"
    monkeypatch.setattr("payments.systems.oltp.connection.DATABASE", "postgres")
    with pytest.raises(UsageError, match="payments up"):
        run_traffic(tps=1, seconds=1, clients=1, seed=1)


def test_percentiles_are_values_that_occurred() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50.0, 95.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0


def traffic() -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "payments", "traffic", "--tps", "0", "--seconds", "1.5", "--clients", "2"],
        capture_output=True,
        text=True,
        env=os.environ,
        cwd=PROJECT_ROOT,
        check=False,
    )
