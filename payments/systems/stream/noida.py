"""The embedded broker: Noida, a small server of the Kafka protocol, as a process of its own on the loopback interface.

It rewrites one snapshot file every second or so: what it acknowledged since is lost when it is killed, and the offsets
are given out again. It keeps everything in memory as well. So nothing may rest on it alone.
"""

import importlib.util
import os
from importlib.metadata import version
from pathlib import Path

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.embedded import EmbeddedServer


class EmbeddedBroker(EmbeddedServer):
    """One broker on disk."""

    name = "broker"
    port_variable = "PAYMENTS_KAFKA_PORT"
    port_option = "--kafka-port"
    data_option = "--data-dir"

    def command(self, port: int) -> list[str]:
        """Return the command. Raises UsageError when the package is missing."""
        return [
            *(str(_program()), "start", "--only", "kafka", self.port_option, str(port)),
            *(self.data_option, str(self.data), "--host", processes.LOOPBACK),
        ]

    def stop(self) -> None:
        """Stop the broker, and note that it is not wanted any more, also when it was killed before."""
        super().stop()
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
