"""Fixtures that several rooms share: the embedded servers, their emptied stores, and a state folder of one test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pymongo.database import Database

from ingestion.cdc.generation import NAME
from payments.settings import settings
from payments.systems.documents import server as documents_server
from payments.systems.documents.client import database
from payments.systems.documents.collections import apply_collections
from payments.systems.oltp import server as oltp_server
from payments.systems.oltp.connection import connect
from payments.systems.oltp.migrations import REFERENCE_TABLES, migrate
from payments.systems.processes import free_port
from tests.dbt_project import Dbt
from tests.systems.brokers import own_broker

LARGE_BYTES = 4 * 1024 * 1024
SERVER_VARIABLES = ("PAYMENTS_OLTP_DSN", "PAYMENTS_DOCUMENTS_URI", "PAYMENTS_KAFKA_BOOTSTRAP")


@dataclass(frozen=True)
class Servers:
    """The servers of a test session and where they live."""

    home: Path
    oltp_port: int
    documents_port: int


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the folders whose files take longest, so that no worker is left alone with one of them at the end."""
    longest = ["orchestration", "warehouse", "simulation", "faults", "compliance"]

    def place(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return longest.index(folder) if folder in longest else len(longest)

    items.sort(key=place)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:  # xdist has no types
    """Let one worker run the files that look at what one of them has built, which is built once then."""
    from xdist.scheduler import LoadFileScheduling

    together = {"orchestration/test_blocking.py": "demo", "orchestration/test_demo.py": "demo",
                "warehouse/test_build.py": "built", "warehouse/test_features.py": "built",
                "warehouse/test_metrics.py": "built", "warehouse/test_trace.py": "built"}  # fmt: skip

    def scope_of(test: str) -> str:
        file = test.partition("::")[0]
        return together.get(file.removeprefix("tests/"), file)

    scheduler = LoadFileScheduling(config, log)
    scheduler._split_scope = scope_of
    return scheduler


@pytest.fixture(scope="session")
def full_size() -> bool:
    """Whether the tests run at full size (``make prove``) instead of the size of CI."""
    return os.environ.get("PAYMENTS_TEST_SIZE") == "full"


@pytest.fixture(scope="session")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    """dbt with artefacts apart from those of the developer."""
    folder = tmp_path_factory.mktemp("dbt")
    of_all_workers = folder.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else folder.parent
    return Dbt(folder, of_all_workers / "dbt parsed")


@pytest.fixture(scope="session")
def reachable_folder() -> Iterator[Path]:
    """A temporary folder with a space in its name that an unprivileged server user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="payments tests "))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def servers(reachable_folder: Path) -> Iterator[Servers]:
    """Both embedded servers, started, migrated and with their collections; stopped and deleted at the end."""
    found = Servers(reachable_folder / "home", free_port(), free_port())
    with pytest.MonkeyPatch.context() as patch:
        for name in SERVER_VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv("PAYMENTS_HOME", str(found.home))
        patch.setenv("PAYMENTS_OLTP_PORT", str(found.oltp_port))
        patch.setenv("PAYMENTS_DOCUMENTS_PORT", str(found.documents_port))
        settings.cache_clear()
        try:
            oltp_server.start()
            documents_server.start()
            migrate()
            apply_collections()
            yield found
        finally:
            # A test may have left other settings behind; the servers to stop are the ones that were started here.
            patch.setenv("PAYMENTS_HOME", str(found.home))
            settings.cache_clear()
            oltp_server.destroy()
            documents_server.destroy()
    settings.cache_clear()


@pytest.fixture
def oltp(servers: Servers) -> Iterator[psycopg.Connection]:
    """A connection (autocommit) to the operational store, which holds reference data only."""
    with connect(autocommit=True) as connection:
        assert connection.info.port == servers.oltp_port, "never empty a server that this session did not start"
        empty_oltp(connection)
        yield connection


def empty_oltp(connection: psycopg.Connection) -> None:
    """Delete all rows but the reference data; append-only triggers are stepped over, as only a superuser may."""
    reference = [table.name for table in REFERENCE_TABLES]
    tables = connection.execute(
        """
        select
            format('%%I.%%I', n.nspname, c.relname),
            (select sum(pg_relation_size(t.relid)) from pg_partition_tree(c.oid) as t)
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops', 'simulation')
            and c.relkind in ('r', 'p')
            and not c.relispartition
            and c.relname not in ('account_codes', 'monthly_tables')
            and not (n.nspname = 'core' and c.relname = any(%s))
        """,
        (reference,),
    ).fetchall()
    names = [name for name, _ in tables]
    with connection.transaction():
        connection.execute("set local session_replication_role = replica")
        if sum(size or 0 for _, size in tables) > LARGE_BYTES:
            connection.execute(f"truncate {', '.join(names)}".encode())
        else:  # a truncate makes every file of every index anew, which costs more than a few rows
            for name in names:
                connection.execute(f"delete from {name}".encode())


def drop_slot(connection: psycopg.Connection) -> None:
    """Drop the replication slot and its publication, which nobody reads; nothing where there are none."""
    dropped = "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s"
    connection.execute(dropped, (NAME,))
    connection.execute(f"drop publication if exists {NAME}".encode())


@pytest.fixture
def without_slot(oltp: psycopg.Connection) -> None:
    """No stream has read the operational store yet."""
    drop_slot(oltp)


@pytest.fixture
def documents(servers: Servers) -> Database[dict[str, Any]]:
    """The document database with its collections, validators and indexes, and no document."""
    found = database()
    assert found.client.address == ("127.0.0.1", servers.documents_port)
    for name in found.list_collection_names():
        found[name].delete_many({})
    apply_collections()
    return found


@pytest.fixture
def platform_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A raw zone, a warehouse and a key ring of this test alone; the servers stay those of the session."""
    monkeypatch.setenv("PAYMENTS_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(tmp_path / "warehouse.duckdb"))
    monkeypatch.setenv("PAYMENTS_KEY_RING", str(tmp_path / "keys" / "ring.json"))
    settings.cache_clear()
    yield tmp_path
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def broker_home(reachable_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder of this test alone, whose embedded broker does not run yet."""
    with own_broker(monkeypatch, reachable_folder / tmp_path.name) as home:
        yield home
