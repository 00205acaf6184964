"""Start, stop and describe the operational store: a given PostgreSQL, or the embedded one."""

from psycopg import Connection, sql
from psycopg.conninfo import conninfo_to_dict

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.folders import remove_server_folder
from payments.systems.oltp import nodes
from payments.systems.oltp.connection import DATABASE, connect, dsn
from payments.systems.oltp.postgres import cluster
from payments.systems.status import StoreStatus

STORE = "PostgreSQL"
OLDEST_VERSION = 15
_WANTED_EXTENSIONS = ("pgcrypto", "pg_partman", "pg_cron")


def start() -> None:
    """Start the embedded server with its databases, and its standby; nothing changes when they run.

    A given server is only checked.

    Raises:
        UsageError: the port is taken, the server does not start, or the given one cannot be used.
    """
    if settings().oltp_dsn is not None:
        with connect() as connection:
            if connection.info.server_version < OLDEST_VERSION * 10_000:
                raise UsageError(
                    f"PAYMENTS_OLTP_DSN names a PostgreSQL older than {OLDEST_VERSION}: use a newer server."
                )
        return
    embedded = cluster()
    with processes.exclusively(embedded.lock_file):
        nodes.start(embedded)
        _provision()


def stop() -> None:
    """Stop the embedded server and wait until it is gone; nothing when it does not run or a server is given."""
    if settings().oltp_dsn is not None:
        return
    embedded = cluster()
    with processes.exclusively(embedded.lock_file):
        nodes.stop(embedded)


def destroy() -> None:
    """Stop the embedded server and delete all of its data; a given server is left alone."""
    if settings().oltp_dsn is not None:
        return
    embedded = cluster()
    with processes.exclusively(embedded.lock_file):
        nodes.stop(embedded, "immediate")  # no need to write down what is deleted next
        remove_server_folder(settings().home, embedded.state.name)


def status() -> StoreStatus:
    """Return what the operational store is, where, and what it lacks; never raises for a store that is down."""
    try:
        with connect(autocommit=True) as connection:
            return _describe(connection)
    except UsageError as error:
        return StoreStatus(STORE, False, None, _where(), None, None, (str(error),))


def _where() -> str:
    given = settings().oltp_dsn
    if given is None:
        return f"{processes.LOOPBACK}:{settings().oltp_port}"
    try:
        parts = conninfo_to_dict(dsn())
    except UsageError:
        return "PAYMENTS_OLTP_DSN"
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def _describe(connection: Connection) -> StoreStatus:
    row = connection.execute(
        """
        select
            current_setting('server_version') as version,
            pg_postmaster_start_time() as up_since,
            pg_database_size(current_database()) as size_bytes,
            (select coalesce(bool_or(ssl), false) from pg_stat_ssl where pid = pg_backend_pid()) as is_encrypted,
            current_setting('ssl_library', true) as tls_library,
            current_setting('wal_level') as wal_level,
            (
                select last_failed_time
                from pg_stat_archiver
                where last_failed_time > coalesce(last_archived_time, '-infinity')
            ) as archiving_failed_at,
            exists (select from pg_collation where collname = 'und-x-icu') as has_icu,
            'lz4' = any (
                select unnest(enumvals) from pg_settings where name = 'default_toast_compression'
            ) as has_lz4,
            array(
                select wanted.name
                from unnest(%s::text[]) with ordinality as wanted (name, n)
                where not exists (select from pg_available_extensions as e where e.name = wanted.name)
                order by wanted.n
            ) as missing_extensions
        """,
        (list(_WANTED_EXTENSIONS),),
    ).fetchone()
    if row is None:
        raise UsageError("PostgreSQL answered its description with no row: check the server.")
    version, up_since, size, is_encrypted, tls_library, wal_level, failed_at, has_icu, has_lz4, extensions = row
    missing = [
        *(["no TLS: this build has no OpenSSL, so it listens on loopback only"] if not tls_library else []),
        *(["connections are not encrypted"] if tls_library and not is_encrypted else []),
        *([f"wal_level is {wal_level}, not logical"] if wal_level != "logical" else []),
        *([f"archiving of WAL fails since {failed_at:%Y-%m-%d %H:%M:%S} UTC: see its log"] if failed_at else []),
        *(["no ICU collations"] if not has_icu else []),
        *(["no lz4 compression"] if not has_lz4 else []),
        *([f"extensions not available: {', '.join(extensions)}"] if extensions else []),
    ]
    where = f"{connection.info.host}:{connection.info.port}/{connection.info.dbname}"
    return StoreStatus(STORE, True, version, where, up_since, size, tuple(missing))


def _provision() -> None:
    """Create what is missing around the schema: the two databases and the warehouse role, which sees nothing else."""
    role, warehouse = settings().warehouse_user, settings().warehouse_dbname
    with connect(autocommit=True, dbname="postgres") as connection:
        known = {name for (name,) in connection.execute("select datname from pg_database")}
        is_new_role = connection.execute("select from pg_roles where rolname = %s", (role,)).fetchone() is None
        if is_new_role:
            connection.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        connection.execute(
            sql.SQL("alter role {} password {}").format(sql.Identifier(role), settings().warehouse_password)
        )
        if DATABASE not in known:
            connection.execute(sql.SQL("create database {}").format(sql.Identifier(DATABASE)))
        if warehouse not in known:
            connection.execute(
                sql.SQL("create database {} owner {}").format(sql.Identifier(warehouse), sql.Identifier(role))
            )
        for closed in (DATABASE, warehouse, "postgres", "template1"):
            connection.execute(sql.SQL("revoke connect on database {} from public").format(sql.Identifier(closed)))
