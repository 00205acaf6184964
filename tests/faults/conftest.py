"""A PostgreSQL of its own for tests that kill it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from payments.settings import settings
from payments.systems.oltp import server
from payments.systems.oltp.migrations import migrate
from tests.conftest import SERVER_VARIABLES, free_port


@pytest.fixture(scope="package")
def own_server(reachable_folder: Path) -> Iterator[Path]:
    """A migrated server beside that of the session, deleted at the end; yields its state folder."""
    home = Path(tempfile.mkdtemp(dir=reachable_folder))
    home.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        for name in (*SERVER_VARIABLES, "PAYMENTS_KEY_RING"):
            patch.delenv(name, raising=False)
        patch.setenv("PAYMENTS_HOME", str(home))
        patch.setenv("PAYMENTS_OLTP_PORT", str(free_port()))
        settings.cache_clear()
        try:
            server.start()
            migrate()
            yield home
        finally:
            server.destroy()
    settings.cache_clear()
