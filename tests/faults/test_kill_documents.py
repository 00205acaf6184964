"""The document server is killed during a load: what was acknowledged stays, and lands once.

As in the tests of PostgreSQL, a kill takes the process, not the machine.
"""

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

import pytest
from pymongo.errors import BulkWriteError, PyMongoError

from ingestion.documents import land_documents
from payments.errors import UsageError
from payments.systems import processes
from payments.systems.documents import server
from payments.systems.documents.client import database
from payments.systems.documents.secantus import document_server
from tests.ingestion.raw import latest, rows
from tests.ingestion.test_documents import event, now

BATCH = 250
pytestmark = pytest.mark.usefixtures("platform_home")


class Writer(threading.Thread):
    """Writes batch after batch, again and again until it is acknowledged, as an application does."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches
        self.acknowledged: list[str] = []
        self.repeated = 0

    def run(self) -> None:
        for batch in range(self.batches):
            found = [event(batch * BATCH + place, written_at=now()) for place in range(BATCH)]
            while not self._write(found):
                self.repeated += 1
            self.acknowledged += [document["_id"] for document in found]

    @staticmethod
    def _write(found: list[dict[str, Any]]) -> bool:
        try:
            database()["click_events"].insert_many(found, ordered=False)
        except BulkWriteError as error:
            # A batch that was written although its answer was lost is there already: that is an acknowledgement.
            return all(problem["code"] == 11_000 for problem in error.details["writeErrors"])
        except (PyMongoError, UsageError):
            return False
        return True


def test_kill_9_during_a_load_loses_nothing_and_lands_nothing_twice(
    own_documents: Path, monkeypatch: pytest.MonkeyPatch, full_size: bool
) -> None:
    kills = 12 if full_size else 2
    seed = int(os.environ.get("PAYMENTS_FAULT_SEED") or SystemRandom().randrange(10**6))
    print(f"{kills} kills ({'full size' if full_size else 'CI size: 12 at full size'}), PAYMENTS_FAULT_SEED={seed}")
    draw = Random(seed)  # noqa: S311 (a repeatable draw)
    monkeypatch.setattr("ingestion.documents.DOCUMENTS_A_LANDING", 1_000)
    writer = Writer(batches=20 * kills)
    writer.start()
    interrupted = 0
    for _ in range(kills):
        killer = threading.Timer(draw.uniform(0.1, 1.5), kill)
        killer.start()
        while killer.is_alive() or document_server().running() is not None:
            interrupted += not land()
        killer.join()
        server.start()
    while writer.is_alive():
        land()
    writer.join()
    while not land() or any(report.entities[0].read for report in land_documents(["click_events"])):
        pass

    stored = {document["_id"] for document in database()["click_events"].find({}, {"_id": 1})}
    assert interrupted + writer.repeated, "nothing was cut off: the kills prove nothing"
    assert stored == set(writer.acknowledged), "lost, or there without an acknowledgement"
    assert {row["event_id"] for row in latest("documents", "click_events")} == stored
    assert set(Counter(row["event_id"] for row in rows("documents", "click_events")).values()) == {1}
    print(f"{len(stored):,} documents, {writer.repeated} batches written again, {interrupted} landings cut off")


def land() -> bool:
    """Land what there is; return whether the store was there all the time."""
    try:
        land_documents(["click_events"])
    except UsageError as error:
        if "document store" not in str(error):
            raise
        return False
    return True


def kill() -> None:
    running = document_server().running()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: processes.command_line(running.pid) is None, 10)
