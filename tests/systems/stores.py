"""Embedded PostgreSQL servers of one test: in a state folder and on ports of their own."""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from payments.settings import settings
from payments.systems import processes
from payments.systems.oltp import server
from payments.systems.oltp.connection import connect
from payments.systems.oltp.postgres import Cluster, cluster
from payments.systems.processes import free_port
from tests.conftest import SERVER_VARIABLES

# Shells, the server's configuration and its archive commands each have a meaning for some of these.
ODD_NAME = "it's a 100%f \\ odd home "


_ROOM_BYTES = 4 * 1024**3


@contextmanager
def own_store(folder: Path, **variables: str) -> Iterator[Path]:
    """Point the settings to a new state folder in which nothing runs yet; delete all that was started in it."""
    home = Path(tempfile.mkdtemp(prefix=ODD_NAME, dir=fast_folder(folder)))
    home.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name in (*SERVER_VARIABLES, "PAYMENTS_POSTGRES_BIN"):
            patch.delenv(name, raising=False)
        patch.setenv("PAYMENTS_HOME", str(home))
        patch.setenv("PAYMENTS_OLTP_PORT", str(free_port()))
        patch.setenv("PAYMENTS_REPLICA_PORT", str(free_port()))
        for name, value in variables.items():
            patch.setenv(name, value)
        settings.cache_clear()
        try:
            yield home
        finally:
            patch.setenv("PAYMENTS_HOME", str(home))
            patch.delenv("PAYMENTS_OLTP_DSN", raising=False)
            settings.cache_clear()
            server.destroy()
            shutil.rmtree(home, ignore_errors=True)
    settings.cache_clear()


def fast_folder(folder: Path) -> Path:
    """Return the memory's file system where it has room: processes are killed here, not the machine."""
    memory = Path("/dev/shm")  # noqa: S108 (mkdtemp makes a folder of its own below it)
    has_room = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES
    return memory if has_room else folder


def kill(killed: Cluster) -> None:
    """Kill a server as the loss of its machine would: no shutdown, no last word."""
    running = killed.postmaster()
    assert running is not None
    os.kill(running.pid, signal.SIGKILL)
    assert processes.wait_until(lambda: processes.command_line(running.pid) is None, 10)


def note(*numbers: int) -> None:
    """Commit numbers, each in a transaction of its own."""
    with connect(autocommit=True) as connection:
        connection.execute("create table if not exists noted (n integer)")
        for number in numbers:
            connection.execute("insert into noted values (%s)", (number,))


def noted() -> list[int]:
    """Return the numbers that the store holds."""
    with connect(autocommit=True) as connection:
        return [n for (n,) in connection.execute("select n from noted order by n")]


def server_log() -> str:
    """Return what the primary printed."""
    return cluster().log.read_text(encoding="utf-8")
