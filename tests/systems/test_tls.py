"""TLS where the server's build offers it: a verified certificate for us, and a closed door for plaintext."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import psycopg2
import pytest
from cryptography import x509

from ingestion.warehouse import attached_warehouse
from payments.settings import settings
from payments.systems.folders import server_user
from payments.systems.oltp import backup, replica, server, tls
from payments.systems.oltp.connection import connect, dsn
from payments.systems.oltp.postgres import cluster
from tests.systems.stores import note, noted, own_store


def binaries_with_tls() -> Path | None:
    """Return a folder of PostgreSQL binaries with OpenSSL, the newest first, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    for folder in folders:
        asked = [str(folder / "postgres"), "-C", "ssl_library", "-D", "/", "-c", f"config_file={os.devnull}"]
        if int(folder.parent.name) >= server.OLDEST_VERSION and "OpenSSL" in server_user().run(asked).stdout:
            return folder
    return None


@pytest.fixture(scope="module")
def secure(reachable_folder: Path) -> Iterator[Path]:
    found = binaries_with_tls()
    if found is None:
        pytest.skip("no PostgreSQL with OpenSSL is installed below /usr/lib/postgresql")
    with own_store(reachable_folder, PAYMENTS_POSTGRES_BIN=str(found)) as home:
        server.start()
        yield home


def address(**parameters: str) -> dict[str, str]:
    """Return how the warehouse role reaches the server."""
    known = {"host": "127.0.0.1", "port": str(settings().oltp_port), "user": "warehouse", "password": "warehouse"}
    return {**known, "dbname": "warehouse", **parameters}


def test_our_connections_are_encrypted_and_verified(secure: Path) -> None:
    with connect(autocommit=True) as connection:
        row = connection.execute("select version from pg_stat_ssl where ssl and pid = pg_backend_pid()").fetchone()
        assert row is not None
        assert row[0] in {"TLSv1.2", "TLSv1.3"}
        assert connection.info.get_parameters()["sslmode"] == "verify-full"
    missing = server.status().missing
    assert not any("TLS" in line or "encrypted" in line for line in missing), missing
    with pytest.raises(psycopg.OperationalError, match=r"does not match host name|certificate"):
        psycopg.connect(dsn(), host="elsewhere.example", hostaddr="127.0.0.1")


def test_plaintext_and_old_protocols_are_refused(secure: Path) -> None:
    for role in (address(sslmode="disable"), address(sslmode="disable", user="postgres", dbname="payments")):
        with pytest.raises(psycopg.OperationalError, match="no encryption"):
            psycopg.connect(**role)  # type: ignore[arg-type]
    with connect() as connection:
        row = connection.execute("select current_setting('ssl_min_protocol_version')").fetchone()
    assert row == ("TLSv1.2",)


def test_dbt_and_duckdb_reach_the_warehouse_as_they_are_configured(
    secure: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg2.connect(**address()) as connection, connection.cursor() as cursor:
        cursor.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
        assert cursor.fetchone() == (True,)
    connection.close()
    with attached_warehouse() as con:
        query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"
        assert con.execute("select * from postgres_query('wh', ?)", [query]).fetchall() == [(True,)]


def test_the_key_is_closed_and_the_authority_signed_one_certificate_only(secure: Path) -> None:
    folder = cluster().folder / "tls"
    assert sorted(path.name for path in folder.iterdir()) == ["authority.crt", "server.crt", "server.key"]
    key = (folder / "server.key").stat()
    assert key.st_mode & 0o777 == 0o600
    assert key.st_uid == server_user().uid
    certificate = x509.load_pem_x509_certificate((folder / "server.crt").read_bytes())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate((folder / "authority.crt").read_bytes()))
    assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=365)
    before = (folder / "server.crt").read_bytes()
    tls.ensure_certificate(cluster().folder, server_user())
    assert (folder / "server.crt").read_bytes() == before, "a certificate that holds is kept"


def test_replication_and_recovery_are_encrypted_too(secure: Path) -> None:
    note(1)
    backup.backup()
    assert replica.start(synchronous=True).sync_state == "sync"
    with connect() as connection:
        query = "select bool_and(s.ssl) from pg_stat_replication as r join pg_stat_ssl as s on r.pid = s.pid"
        assert connection.execute(query).fetchone() == (True,)
    note(2)
    replica.failover()
    assert noted() == [1, 2]
    backup.restore()
    assert noted() == [1, 2]
