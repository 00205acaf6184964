"""The embedded broker: Noida, a small server of the Kafka protocol, as a process of its own on the loopback interface.

It rewrites one snapshot file every second or so: what it acknowledged since is lost when it is killed, and the offsets
are given out again. It keeps everything in memory as well. So nothing may rest on it alone.
"""

import importlib.util
import os
import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes

_START_SECONDS = 30
_STOP_SECONDS = 30
_REMAINS_SECONDS = 10


@dataclass(frozen=True)
class RunningBroker:
    """A running broker, as its command line says."""

    pid: int
    port: int


@dataclass(frozen=True)
class EmbeddedBroker:
    """One broker on disk."""

    folder: Path

    @property
    def data(self) -> Path:
        """The storage folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file that holds what the broker prints."""
        return self.folder / "server.log"

    @property
    def pid_file(self) -> Path:
        """The file with the pid: it is there from a start to a stop, also when the broker was killed meanwhile."""
        return self.folder / "pid"

    @property
    def lock_file(self) -> Path:
        """The file that a command locks while it starts or stops the broker."""
        return self.folder / "lock"

    def running(self) -> RunningBroker | None:
        """Return the broker that runs on this storage, or None; a pid of some other program does not count."""
        try:
            pid = int(self.pid_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        command = " ".join(processes.command_line(pid) or ())
        port = re.search(r"--kafka-port (\d+) ", command)
        if port is None or f"--data-dir {self.data} " not in command:
            return None
        return RunningBroker(pid, int(port.group(1)))

    def start(self, port: int) -> None:
        """Start the broker on a loopback port. Nothing when it runs.

        Raises:
            UsageError: the port is taken, the broker runs on another port, or it does not start.
        """
        running = self.running()
        if running is not None:
            if running.port != port:
                raise UsageError(
                    f"The embedded broker runs on port {running.port}, not {port}: "
                    f"run payments down first, or set PAYMENTS_KAFKA_PORT={running.port}."
                )
            # One that was just killed may look alive for a moment.
            processes.wait_until(lambda: self.running() is None or processes.accepts_connections(port), _START_SECONDS)
            if self.running() is not None:
                return
        patience = _REMAINS_SECONDS if self.pid_file.exists() else 0
        processes.require_free_port(port, "the broker", "PAYMENTS_KAFKA_PORT", patience)
        pid = processes.launch(
            [
                *(str(_program()), "start", "--only", "kafka", "--kafka-port", str(port)),
                *("--data-dir", str(self.data), "--host", processes.LOOPBACK),
            ],
            pid_file=self.pid_file,
            log_file=self.log,
            cwd=self.folder,
        )
        processes.wait_until(
            lambda: processes.command_line(pid) is None or processes.accepts_connections(port), _START_SECONDS
        )
        if processes.command_line(pid) is None or not processes.accepts_connections(port):
            printed = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = printed[-1] if printed else "it printed nothing"
            raise UsageError(f"The broker did not start ({reason}): see {self.log}.")

    def stop(self) -> None:
        """Stop the broker and wait until it has written all it holds. Nothing when it does not run."""
        running = self.running()
        if running is not None:
            processes.terminate(running.pid, _STOP_SECONDS)
        self.pid_file.unlink(missing_ok=True)


def embedded_broker() -> EmbeddedBroker:
    """Return the embedded broker of this state folder."""
    folder = settings().home.resolve() / "stream"
    folder.mkdir(parents=True, exist_ok=True)
    return EmbeddedBroker(folder)


def noida_version() -> str:
    """Return the version of the package."""
    return version("noida-db")


def _program() -> Path:
    """Return the program itself: the command of the package would stand between it and the signals for it."""
    found = importlib.util.find_spec("noida_db")
    if found is None or found.origin is None:
        raise UsageError(
            "The package noida-db is missing: install the extra embedded, or set PAYMENTS_KAFKA_BOOTSTRAP."
        )
    program = Path(found.origin).parent / "noida-db"
    if not os.access(program, os.X_OK):
        program.chmod(0o755)  # a wheel does not say so
    return program
