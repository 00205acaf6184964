"""A server that comes as a Python package: a process of its own on the loopback interface, its data in one folder."""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from payments.errors import UsageError
from payments.systems import processes

_START_SECONDS = 60
_STOP_SECONDS = 30
_REMAINS_SECONDS = 10


@dataclass(frozen=True)
class Running:
    """A running server, as its command line says."""

    pid: int
    port: int


@dataclass(frozen=True)
class EmbeddedServer(ABC):
    """One server on disk. A subclass says what it is called, how it is told its port and folder, and its command."""

    name: ClassVar[str]
    port_variable: ClassVar[str]
    port_option: ClassVar[str]
    data_option: ClassVar[str]

    folder: Path

    @property
    def data(self) -> Path:
        """The storage folder."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file that holds what the server prints."""
        return self.folder / "server.log"

    @property
    def pid_file(self) -> Path:
        """The file with the pid: it is there from a start to a stop, also when the server was killed meanwhile."""
        return self.folder / "pid"

    @property
    def lock_file(self) -> Path:
        """The file that a command locks while it starts or stops the server."""
        return self.folder / "lock"

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """Make what a start needs, and return the command that serves the storage folder on a port.

        Raises:
            UsageError: the package is missing.
        """

    def running(self) -> Running | None:
        """Return the server that runs on this storage, or None; a pid of some other program does not count."""
        return self.running_on(self.data)

    def running_on(self, storage: Path) -> Running | None:
        """Return the server that runs on a storage folder, or None."""
        try:
            pid = int(self.pid_file.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        command = " ".join(processes.command_line(pid) or ())
        port = re.search(rf"{self.port_option} (\d+) ", command)
        if port is None or f"{self.data_option} {storage} " not in command:
            return None
        return Running(pid, int(port.group(1)))

    def start(self, port: int) -> None:
        """Start the server on a loopback port. Nothing when it runs.

        Raises:
            UsageError: the port is taken, the server runs on another port, or it does not start.
        """
        running = self.running()
        if running is not None:
            if running.port != port:
                raise UsageError(
                    f"The embedded {self.name} runs on port {running.port}, not {port}: "
                    f"run payments down first, or set {self.port_variable}={running.port}."
                )
            # One that was just killed may look alive for a moment.
            if self._is_ready(running.pid, port):
                return
            if self.running() is not None:
                raise self._unstarted()
        # A stopped server leaves no pid file: one that does was killed, and its threads may hold the port for a moment.
        patience = _REMAINS_SECONDS if self.pid_file.exists() else 0
        processes.require_free_port(port, f"the {self.name}", self.port_variable, patience)
        self.launch(self.command(port), port)

    def launch(self, command: list[str], port: int) -> int:
        """Start a command, wait until it listens, and return its pid. Raises UsageError when it does not."""
        pid = processes.launch(command, pid_file=self.pid_file, log_file=self.log, cwd=self.folder)
        if not self._is_ready(pid, port):
            raise self._unstarted()
        return pid

    def stop(self) -> None:
        """Stop the server and wait until it is gone. Nothing when it does not run."""
        running = self.running()
        if running is not None:
            self.end(running.pid)
            self.pid_file.unlink(missing_ok=True)

    def end(self, pid: int) -> None:
        """Ask a process to end, and wait until it has written all it holds."""
        processes.terminate(pid, _STOP_SECONDS)

    def _is_ready(self, pid: int, port: int) -> bool:
        """Wait until a process listens; return False when it ended, or took too long."""
        processes.wait_until(
            lambda: processes.command_line(pid) is None or processes.accepts_connections(port), _START_SECONDS
        )
        return processes.command_line(pid) is not None and processes.accepts_connections(port)

    def _unstarted(self) -> UsageError:
        printed = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        reason = printed[-1] if printed else "it printed nothing"
        return UsageError(f"The {self.name} did not start ({reason}): see {self.log}.")
