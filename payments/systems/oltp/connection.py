"""How to reach the operational store."""

from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.pq.abc import PGconn

from payments.errors import UnreachableError, UsageError
from payments.settings import settings
from payments.systems.oltp import tls
from payments.systems.oltp.postgres import SUPERUSER, cluster
from payments.systems.processes import LOOPBACK

DATABASE = "payments"


def dsn(dbname: str | None = None) -> str:
    """Return the connection string of the operational store: the given server, else the embedded one.

    Args:
        dbname: another database of that server.

    Raises:
        UsageError: no server is given and the embedded one was never made.
    """
    given = settings().oltp_dsn
    if given is not None:
        try:
            return make_conninfo(given, **({} if dbname is None else {"dbname": dbname}))
        except psycopg.ProgrammingError as error:
            raise UsageError(f"PAYMENTS_OLTP_DSN is no connection string: {str(error).strip()}") from None
    embedded = cluster()
    running = embedded.postmaster()
    port = settings().oltp_port if running is None else running.port
    address = f"postgresql://{SUPERUSER}:{embedded.password()}@{LOOPBACK}:{port}/{dbname or DATABASE}"
    parameters = tls.client_parameters(embedded.folder)
    return f"{address}?{urlencode(parameters, quote_via=quote)}" if parameters else address


def connect(*, autocommit: bool = False, dbname: str | None = None, port: int | None = None) -> psycopg.Connection:
    """Return a connection to the operational store, its time zone UTC.

    Args:
        autocommit: whether each statement is a transaction of its own.
        dbname: another database of that server.
        port: the port of another server with the same passwords: the standby, or a restored copy.

    Raises:
        UnreachableError: the server does not answer.
    """
    try:
        return psycopg.connect(
            dsn(dbname) if port is None else make_conninfo(dsn(dbname), port=port),
            autocommit=autocommit,
            options="-c timezone=UTC",
            application_name="payments",
            connect_timeout=10,
        )
    except psycopg.OperationalError as error:
        advice = "run payments up" if settings().oltp_dsn is None else "check PAYMENTS_OLTP_DSN"
        reason = str(error).strip().splitlines()[-1].strip()
        raise UnreachableError(f"PostgreSQL cannot be reached ({reason}): {advice}.") from error


def last_error(connection: PGconn) -> str:
    """Return the first line of what a connection of the driver's lower layer reported last."""
    return connection.get_error_message().strip().splitlines()[0].removeprefix("ERROR:").strip()
