"""The embedded document server: SecantusDB, as a process of its own that is never imported.

It listens on the loopback interface only and wants a password (SCRAM-SHA-256). It has no localhost exception, so the
user is created on storage that is still aside, by a server that asks for none, on a random port; then the storage is
renamed.
"""

import importlib.util
import secrets
import shutil
import sys
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.embedded import EmbeddedServer
from payments.systems.folders import write_private

USER = "payments"
# Change streams resume from the operation log: it has to outlast a pause of the consumer.
_OPLOG_ENTRIES = 1_000_000
_OPLOG_SECONDS = 7 * 24 * 3600


class DocumentServer(EmbeddedServer):
    """One document server on disk."""

    name = "document server"
    port_variable = "PAYMENTS_DOCUMENTS_PORT"
    port_option = "--port"
    data_option = "--storage-path"

    @property
    def password_file(self) -> Path:
        """The file, of mode 0600, that holds the user's password."""
        return self.folder / "password"

    def password(self) -> str:
        """Return the password of the user ``payments``.

        Raises:
            UsageError: the server was never started.
        """
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise UsageError("The embedded document server was never started: run payments up.") from None

    def command(self, port: int) -> list[str]:
        """Return the command that serves those who have the password; make the storage when it is missing.

        Raises UsageError when the package is.
        """
        if importlib.util.find_spec("secantus") is None:
            raise UsageError(
                "The package secantusdb is missing: install the extra embedded, or set PAYMENTS_DOCUMENTS_URI."
            )
        if not self.data.exists():
            self._make()
        return [*self._command(self.data, port), "--auth"]

    def _make(self) -> None:
        """Make the storage with its user aside and rename it, so that a kill leaves no server without a password."""
        aside = self.folder / "data.partial"
        left_over = self.running_on(aside)
        if left_over is not None:
            self.end(left_over.pid)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        password = secrets.token_hex(24)
        write_private(self.password_file, f"{password}\n")
        port = processes.free_port()
        pid = self.launch(self._command(aside, port), port)
        try:
            with MongoClient[dict[str, object]](processes.LOOPBACK, port, directConnection=True) as client:
                client["admin"].command("createUser", USER, pwd=password, roles=[{"role": "root", "db": "admin"}])
        except PyMongoError as error:
            raise UsageError(f"The document server could not create its user ({error}): see {self.log}.") from error
        finally:
            self.end(pid)
        aside.rename(self.data)

    def _command(self, storage: Path, port: int) -> list[str]:
        configuration = self.folder / "secantusd.toml"
        # An empty file: without one the server would take whatever lies in the home or current folder.
        configuration.write_text("", encoding="utf-8")
        return [
            *(sys.executable, "-m", "secantus", "--config", str(configuration), "--host", processes.LOOPBACK),
            *(self.port_option, str(port), self.data_option, str(storage), "--log-level", "WARNING"),
            *("--oplog-max-entries", str(_OPLOG_ENTRIES), "--oplog-retention-seconds", str(_OPLOG_SECONDS)),
        ]


def document_server() -> DocumentServer:
    """Return the embedded document server of this state folder."""
    folder = settings().home.resolve() / "documents"
    folder.mkdir(parents=True, exist_ok=True)
    return DocumentServer(folder)
