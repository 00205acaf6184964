"""Servers of their own for tests that kill them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from payments.settings import settings
from payments.systems.documents import server as documents_server
from payments.systems.documents.collections import apply_collections
from payments.systems.oltp import server
from payments.systems.oltp.migrations import migrate
from payments.systems.processes import free_port
from tests.conftest import SERVER_VARIABLES


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


@pytest.fixture
def own_documents(reachable_folder: Path) -> Iterator[Path]:
    """A document server with its collections beside that of the session, deleted at the end; yields its folder."""
    home = Path(tempfile.mkdtemp(dir=reachable_folder))
    home.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PAYMENTS_DOCUMENTS_URI", raising=False)
        patch.setenv("PAYMENTS_HOME", str(home))
        patch.setenv("PAYMENTS_DOCUMENTS_PORT", str(free_port()))
        settings.cache_clear()
        try:
            documents_server.start()
            apply_collections()
            yield home
        finally:
            documents_server.destroy()
    settings.cache_clear()
