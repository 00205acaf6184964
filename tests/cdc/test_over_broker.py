"""The stream over a broker lands what it lands without one, also when the broker dies under it."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from ingestion.cdc import supervisor
from ingestion.cdc.stream import drain, follow
from ingestion.cdc.supervisor import supervise
from payments.simulation.traffic import run_traffic
from payments.systems.stream import server
from tests.conftest import Servers
from tests.ingestion.raw import assert_nothing_lost_or_twice, pin
from tests.systems.brokers import kill_broker, own_broker
from tests.systems.shop import Shop

pytestmark = pytest.mark.usefixtures("platform_home", "without_slot")


@pytest.fixture(autouse=True)
def broker(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_broker(monkeypatch, servers.home):
        server.start()
        yield


def test_all_that_is_committed_lands(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    drain()
    assert drain() == []
    assert run_traffic(tps=0, seconds=2, clients=3, seed=3).acknowledged
    reports = drain()
    assert sum(counts.accepted for report in reports for counts in report.entities) > 50
    assert {commit.kind for commit in pin().commits[1:]} == {"snapshot", "log"}
    assert_nothing_lost_or_twice()


def test_a_broker_that_dies_is_refilled(oltp: psycopg.Connection) -> None:
    Shop(oltp).open()
    drain()
    stop = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        traffic = pool.submit(run_traffic, tps=0, seconds=60, clients=3, seed=4, stop=stop)
        streamed = 0
        for step in follow(stop.is_set):
            streamed += step.changes
            if streamed > 200 and not stop.is_set():
                kill_broker()
                server.start()
                stop.set()
        traffic.result()
    drain()
    assert_nothing_lost_or_twice()


def test_copies_that_fail_as_they_never_should_end_the_stream(
    oltp: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(oltp).open()

    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(supervisor, "advance_copies", fail)
    until = time.monotonic() + 60
    views = (shop.pay(1_000) for _ in supervise(lambda: time.monotonic() > until))
    with pytest.raises(ZeroDivisionError):
        list(views)


def test_the_supervisor_shows_what_each_stage_does(oltp: psycopg.Connection, documents: object) -> None:
    Shop(oltp).open()
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        traffic = pool.submit(run_traffic, tps=20, seconds=3, clients=2, seed=5)
        last = None
        for view in supervise(stop.is_set):
            last = view
            if traffic.done() and view.lag_bytes == 0 and view.copies.sequence == pin().sequence:
                stop.set()
    assert last is not None
    assert last.changes > 0
    assert last.position is not None
    assert (last.dead_letters, last.stopped, last.waiting) == (0, {}, None)
    assert (last.copies.failure, last.copies.sequence) == (None, pin().sequence)
