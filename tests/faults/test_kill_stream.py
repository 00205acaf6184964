"""PostgreSQL dies while its log is read: what was committed lands, in order and once, whatever the server forgot."""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random, SystemRandom

import pytest

from ingestion.cdc.stream import drain, follow
from payments.errors import UsageError
from payments.simulation.traffic import TrafficReport, run_traffic
from payments.systems.oltp import server
from tests.faults.test_kill_server import CLIENTS, clients_connected, kill_all, wait_for
from tests.ingestion.raw import assert_nothing_lost_or_twice, pin

pytestmark = pytest.mark.usefixtures("platform_home")


def follow_until(stop: threading.Event) -> int:
    return sum(step.changes for step in follow(stop.is_set))


def is_under_way(traffic: Future[TrafficReport]) -> bool:
    return traffic.done() or clients_connected() >= CLIENTS


def test_a_killed_server_loses_no_change_and_repeats_none(own_server: Path, full_size: bool) -> None:
    kills = 12 if full_size else 2
    seed = int(os.environ.get("PAYMENTS_FAULT_SEED") or SystemRandom().randrange(10**6))
    print(f"{kills} kills ({'full size' if full_size else 'CI size: 12 at full size'}), PAYMENTS_FAULT_SEED={seed}")
    draw = Random(seed)  # noqa: S311 (a repeatable draw)
    drain()
    for number in range(kills):
        stop = threading.Event()
        with ThreadPoolExecutor(max_workers=2) as pool:
            traffic = pool.submit(run_traffic, tps=0, seconds=30, clients=CLIENTS, seed=seed + number, stop=stop)
            stream = pool.submit(follow_until, stop)
            wait_for(partial(is_under_way, traffic))
            stop.wait(draw.uniform(0.2, 1.5))
            kill_all()
            assert isinstance(stream.exception(timeout=60), UsageError)
            stop.set()
            server.start()
            traffic.result(timeout=60)
    drain()

    changes = assert_nothing_lost_or_twice()
    assert {commit.position.split("/")[0] for commit in pin().commits} == {"00000001"}, "a crash is no new epoch"
    print(f"{changes:,} changes")
