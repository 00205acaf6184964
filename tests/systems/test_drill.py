"""The drill: it measures, it finds nothing lost in synchronous mode, and it would tell if something were."""

import os
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.connection import connect
from payments.systems.oltp.drill import drill
from tests.conftest import SERVER_VARIABLES
from tests.systems.shop import Shop
from tests.systems.stores import fast_folder


@dataclass
class Paid:
    acknowledged: list[tuple[str, str]]


def pay(stop: threading.Event) -> Paid:
    """Pay from one client, which reconnects after errors."""
    paid = Paid([])
    with connect(autocommit=True) as connection:
        shop = Shop(connection).open()
    while not stop.is_set():
        try:
            with connect(autocommit=True) as connection:
                while not stop.is_set():
                    charge_id = replace(shop, connection=connection).pay(1_000)
                    paid.acknowledged.append((shop.merchant_id, charge_id))
        except (psycopg.OperationalError, UsageError):
            stop.wait(0.01)
    return paid


def test_a_drill_loses_nothing_and_measures_both_recoveries(
    reachable_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(fast_folder(reachable_folder)))
    for name in SERVER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    before = settings().home, os.environ.get("PAYMENTS_REPLICA_PORT")

    def lying(stop: threading.Event) -> Paid:
        paid = pay(stop)
        return Paid([*paid.acknowledged, ("acct_shop", "ch_never")])

    report = drill(traffic=lying, seconds=2, seed=11, synchronous=True)
    failover, restore = report.recoveries
    assert failover.lost == 1, "the payment that nobody made, and no other"
    assert not report.passed
    assert failover.expected > 10
    assert 0 < failover.seconds < 60
    assert failover.faults == ()
    assert (restore.lost, restore.surplus, restore.faults) == (0, 0, ())
    assert 0 < restore.seconds < 60
    assert replace(report, recoveries=(replace(failover, lost=0), restore)).passed
    assert replace(report, is_synchronous=False).passed
    assert (settings().home, os.environ.get("PAYMENTS_REPLICA_PORT")) == before


def test_a_drill_needs_the_embedded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENTS_OLTP_DSN", "postgresql://127.0.0.1:1/elsewhere")
    settings.cache_clear()
    with pytest.raises(UsageError, match="operator"):
        drill(traffic=pay, seconds=1, seed=1, synchronous=True)
    monkeypatch.undo()
    settings.cache_clear()
