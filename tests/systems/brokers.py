"""Embedded brokers of one test: on a port of their own, killed as a crash would, deleted at the end."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from payments.settings import settings
from payments.systems import processes
from payments.systems.stream import server
from payments.systems.stream.noida import embedded_broker

_SECONDS_TO_DIE = 10


def point_to_broker(patch: pytest.MonkeyPatch, home: Path, port: int) -> None:
    """Let this process mean the embedded broker of a state folder."""
    patch.delenv("PAYMENTS_KAFKA_BOOTSTRAP", raising=False)
    patch.setenv("PAYMENTS_HOME", str(home))
    patch.setenv("PAYMENTS_KAFKA_PORT", str(port))
    settings.cache_clear()


@contextmanager
def own_broker(patch: pytest.MonkeyPatch, home: Path) -> Iterator[Path]:
    """Point the settings to an embedded broker that does not run yet, on a free port; stop and delete it at the end."""
    port = processes.free_port()
    point_to_broker(patch, home, port)
    try:
        yield home
    finally:
        # The test, or a fixture that ended before, may have left other settings behind.
        point_to_broker(patch, home, port)
        server.destroy()
        settings.cache_clear()


def kill_broker() -> None:
    """End the broker as a crash would: it forgets what it acknowledged last."""
    running = embedded_broker().running()
    assert running is not None
    processes.kill(running.pid)
    assert processes.wait_until(lambda: embedded_broker().running() is None, _SECONDS_TO_DIE)
