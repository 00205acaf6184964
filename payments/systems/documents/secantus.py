"""The embedded document server: SecantusDB, as a process of its own that is never imported.

It listens on the loopback interface only and wants a password (SCRAM-SHA-256). It has no localhost exception, so the
user is created on storage that is still aside, by a server that asks for none, on a random port; then the storage is
renamed.
"""

import importlib.util
import re
import secrets
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.folders import write_private

USER = "payments"
_START_SECONDS = 60
_STOP_SECONDS = 30
_REMAINS_SECONDS = 10
# Change streams resume from the operation log: it has to outlast a pause of the consumer.
_OPLOG_ENTRIES = 1_000_000
_OPLOG_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class RunningServer:
    """A running document server, as its command line says."""

    pid: int
    port: int


@dataclass(frozen=True)
class DocumentServer:
    """One document server on disk."""

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
    def password_file(self) -> Path:
        """The file, of mode 0600, that holds the user's password."""
        return self.folder / "password"

    @property
    def lock_file(self) -> Path:
        """The file that a command locks while it starts or stops the server."""
        return self.folder / "lock"

    def password(self) -> str:
        """Return the password of the user ``payments``.

        Raises:
            UsageError: the server was never started.
        """
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise UsageError("The embedded document server was never started: run payments up.") from None

    def running(self) -> RunningServer | None:
        """Return the server that runs on this storage, or None; a pid of some other program does not count."""
        return self._running_on(self.data)

    def start(self, port: int) -> None:
        """Start the server on a loopback port, after making the storage when it is missing. Nothing when it runs.

        Raises:
            UsageError: the port is taken, the server runs on another port, or it does not start.
        """
        running = self.running()
        if running is not None:
            if running.port != port:
                raise UsageError(
                    f"The embedded document server runs on port {running.port}, not {port}: "
                    f"run payments down first, or set PAYMENTS_DOCUMENTS_PORT={running.port}."
                )
            self._wait_ready(running.pid, port)
            return
        # A stopped server leaves no pid file: one that does was killed, and its threads may hold the port for a moment.
        patience = _REMAINS_SECONDS if (self.folder / "pid").exists() else 0
        processes.require_free_port(port, "the document server", "PAYMENTS_DOCUMENTS_PORT", patience)
        if importlib.util.find_spec("secantus") is None:
            raise UsageError(
                "The package secantusdb is missing: install the extra embedded, or set PAYMENTS_DOCUMENTS_URI."
            )
        if not self.data.exists():
            self._make()
        self._launch(self.data, port, "--auth")

    def stop(self) -> None:
        """Stop the server and wait until it is gone. Nothing when it does not run."""
        running = self.running()
        if running is not None:
            processes.terminate(running.pid, _STOP_SECONDS)
            (self.folder / "pid").unlink(missing_ok=True)

    def _running_on(self, storage: Path) -> RunningServer | None:
        try:
            pid = int((self.folder / "pid").read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None
        command = " ".join(processes.command_line(pid) or ())
        port = re.search(r"--port (\d+) ", command)
        if port is None or f"--storage-path {storage} " not in command:
            return None
        return RunningServer(pid, int(port.group(1)))

    def _make(self) -> None:
        """Make the storage with its user aside and rename it, so that a kill leaves no server without a password."""
        aside = self.folder / "data.partial"
        left_over = self._running_on(aside)
        if left_over is not None:
            processes.terminate(left_over.pid, _STOP_SECONDS)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        password = secrets.token_hex(24)
        write_private(self.password_file, f"{password}\n")
        port = _free_port()
        pid = self._launch(aside, port)
        try:
            with MongoClient[dict[str, object]](processes.LOOPBACK, port, directConnection=True) as client:
                client["admin"].command("createUser", USER, pwd=password, roles=[{"role": "root", "db": "admin"}])
        except PyMongoError as error:
            raise UsageError(f"The document server could not create its user ({error}): see {self.log}.") from error
        finally:
            processes.terminate(pid, _STOP_SECONDS)
        aside.rename(self.data)

    def _launch(self, storage: Path, port: int, *options: str) -> int:
        configuration = self.folder / "secantusd.toml"
        # An empty file: without one the server would take whatever lies in the home or current folder.
        configuration.write_text("", encoding="utf-8")
        pid = processes.launch(
            [
                *(sys.executable, "-m", "secantus", "--config", str(configuration), "--host", processes.LOOPBACK),
                *("--port", str(port), "--storage-path", str(storage), "--log-level", "WARNING"),
                *(
                    "--oplog-max-entries",
                    str(_OPLOG_ENTRIES),
                    "--oplog-retention-seconds",
                    str(_OPLOG_SECONDS),
                    *options,
                ),
            ],
            pid_file=self.folder / "pid",
            log_file=self.log,
            cwd=self.folder,
        )
        self._wait_ready(pid, port)
        return pid

    def _wait_ready(self, pid: int, port: int) -> None:
        processes.wait_until(
            lambda: processes.command_line(pid) is None or processes.accepts_connections(port), _START_SECONDS
        )
        if processes.command_line(pid) is None or not processes.accepts_connections(port):
            printed = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = printed[-1] if printed else "it printed nothing"
            raise UsageError(f"The document server did not start ({reason}): see {self.log}.")


def document_server() -> DocumentServer:
    """Return the embedded document server of this state folder."""
    folder = settings().home.resolve() / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    return DocumentServer(folder)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((processes.LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
