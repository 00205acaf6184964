"""How to reach the document store."""

from datetime import UTC
from functools import cache
from typing import Any

from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import AutoReconnect, PyMongoError, ServerSelectionTimeoutError

from payments.errors import UsageError
from payments.settings import settings
from payments.systems.documents.secantus import USER, document_server
from payments.systems.processes import LOOPBACK

DATABASE = "payments"
_SELECTION_MILLISECONDS = 5_000


def uri() -> str:
    """Return the URI of the document store: the given server, else the embedded one.

    The embedded server's URI acknowledges a write when it is on disk, and does not retry writes, which would make them
    25 times slower there.

    Raises:
        UsageError: no server is given and the embedded one was never started.
    """
    given = settings().documents_uri
    if given is not None:
        return given
    server = document_server()
    running = server.running()
    port = settings().documents_port if running is None else running.port
    options = "authSource=admin&directConnection=true&retryWrites=false&w=majority&journal=true"
    return f"mongodb://{USER}:{server.password()}@{LOOPBACK}:{port}/?{options}"


def database() -> Database[dict[str, Any]]:
    """Return the database of the platform; its times are timezone-aware, in UTC.

    Raises:
        UsageError: the server cannot be reached or refuses the user.
    """
    found = client()
    try:
        _greet(found)
    except PyMongoError as error:
        advice = "run payments up" if settings().documents_uri is None else "check PAYMENTS_DOCUMENTS_URI"
        raise UsageError(f"The document store cannot be reached ({_first_line(error)}): {advice}.") from error
    return found[DATABASE]


def client() -> MongoClient[dict[str, Any]]:
    """Return this process' client of the document store; it connects when it is first used."""
    return _client(uri())


def _greet(found: MongoClient[dict[str, Any]]) -> None:
    """Ask something that needs a password; a connection of before a restart of the server gets a second chance."""
    for is_last in (False, True):
        try:
            found[DATABASE].command("connectionStatus")
            return
        except AutoReconnect as error:
            if is_last or isinstance(error, ServerSelectionTimeoutError):
                raise


@cache
def _client(address: str) -> MongoClient[dict[str, Any]]:
    if not address.startswith(("mongodb://", "mongodb+srv://")):
        raise UsageError("PAYMENTS_DOCUMENTS_URI is no MongoDB URI: it begins with mongodb:// or mongodb+srv://.")
    # An option in the URI is the user's word; arguments would override it.
    patience: dict[str, Any] = (
        {} if "serverSelectionTimeoutMS" in address else {"serverSelectionTimeoutMS": _SELECTION_MILLISECONDS}
    )
    try:
        return MongoClient(address, tz_aware=True, tzinfo=UTC, appname="payments", **patience)
    except (PyMongoError, ValueError) as error:
        raise UsageError(f"PAYMENTS_DOCUMENTS_URI is no MongoDB URI: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].split(",")[0]
