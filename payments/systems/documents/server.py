"""Start, stop and describe the document store: a given MongoDB, or the embedded server."""

from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError
from pymongo.uri_parser import parse_uri

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.documents.capabilities import PROBE, capabilities
from payments.systems.documents.client import DATABASE, client, database, uri
from payments.systems.documents.secantus import document_server
from payments.systems.folders import folder_bytes, remove_server_folder
from payments.systems.status import StoreStatus

STORE = "MongoDB"


def start() -> None:
    """Start the embedded server; nothing changes when it runs. A given server is only checked.

    Raises:
        UsageError: the port is taken, the server does not start, or the given one cannot be used.
    """
    if settings().documents_uri is None:
        server = document_server()
        with processes.exclusively(server.lock_file):
            server.start(settings().documents_port)
    database()


def stop() -> None:
    """Stop the embedded server and wait until it is gone; nothing when it does not run or a server is given."""
    if settings().documents_uri is not None:
        return
    server = document_server()
    with processes.exclusively(server.lock_file):
        server.stop()


def destroy() -> None:
    """Stop the embedded server and delete all of its data; a given server is left alone."""
    if settings().documents_uri is not None:
        return
    server = document_server()
    with processes.exclusively(server.lock_file):
        server.stop()
        remove_server_folder(settings().home, server.folder.name)


def status() -> StoreStatus:
    """Return what the document store is, where, and what it lacks; never raises for a store that is down."""
    try:
        database()
        return _describe(client())
    except (UsageError, PyMongoError) as error:
        return StoreStatus(STORE, False, None, _where(), None, None, (str(error).splitlines()[0],))


def _where() -> str:
    if settings().documents_uri is None:
        return f"{processes.LOOPBACK}:{settings().documents_port}"
    return "PAYMENTS_DOCUMENTS_URI"


def _describe(found: MongoClient[dict[str, Any]]) -> StoreStatus:
    hello = found["admin"].command("hello")
    build = found["admin"].command("buildInfo")
    server = found["admin"].command("serverStatus")
    secantus = build.get("secantusVersion")
    version = str(build["version"]) if secantus is None else f"{build['version']} (SecantusDB {secantus})"
    nodes = ",".join(f"{host}:{port}" for host, port in sorted(found.nodes))
    return StoreStatus(
        store=STORE,
        is_running=True,
        version=version,
        where=f"{nodes}/{DATABASE}",
        up_since=datetime.now(UTC) - timedelta(seconds=float(server["uptime"])),
        size_bytes=_size(found),
        missing=tuple(_missing(found, hello)),
    )


def _size(found: MongoClient[dict[str, Any]]) -> int | None:
    """Return the bytes on disk: of the embedded server's folder, which is fast, or as a given server tells."""
    if settings().documents_uri is None:
        return folder_bytes(document_server().data)
    sizes = (found_database.get("sizeOnDisk", 0) for found_database in found.list_databases())
    return int(sum(sizes))


def _missing(found: MongoClient[dict[str, Any]], hello: dict[str, Any]) -> list[str]:
    is_sharded = hello.get("msg") == "isdbgrid"
    return [
        *(["no TLS: connections are not encrypted"] if not _uses_tls() else []),
        *(["no authentication: any local program may read it"] if _serves_strangers(found) else []),
        *capabilities(found).missing,
        *(["no second member: nothing takes over when it fails"] if _is_alone(hello) and not is_sharded else []),
        *(["no sharding"] if not is_sharded else []),
        *(["no text search"] if not _understands(found, {"$text": {"$search": "x"}}) else []),
        *(["no $where"] if not _understands(found, {"$where": "true"}) else []),
    ]


def _is_alone(hello: dict[str, Any]) -> bool:
    return len(hello.get("hosts", ())) < 2


def _understands(found: MongoClient[dict[str, Any]], query: dict[str, Any]) -> bool:
    """Say whether the server knows an operator; on a collection without documents other refusals do not count."""
    try:
        list(found[DATABASE][PROBE].find(query, limit=1))
    except OperationFailure as error:
        text = str(error)
        return "unknown" not in text and "globalScriptEngine" not in text
    return True


def _uses_tls() -> bool:
    address = uri()
    # The scheme with +srv means TLS unless it is switched off; its options need no look-up of names to be read.
    options = parse_uri(address.replace("mongodb+srv:", "mongodb:", 1), validate=False)["options"]
    return bool(options.get("tls", address.startswith("mongodb+srv:")))


def _serves_strangers(found: MongoClient[dict[str, Any]]) -> bool:
    host, port = sorted(found.nodes)[0]
    with MongoClient[dict[str, Any]](
        host, port, directConnection=True, serverSelectionTimeoutMS=2_000, tls=_uses_tls()
    ) as stranger:
        try:
            stranger.list_database_names()
        except PyMongoError:
            return False
    return True
