"""The operational systems, together: started with their schema applied, stopped, and described."""

from dataclasses import replace

from psycopg import errors

from payments.systems.documents import server as documents_server
from payments.systems.documents.collections import apply_collections
from payments.systems.documents.together import finish_pending
from payments.systems.oltp import replica
from payments.systems.oltp import server as oltp_server
from payments.systems.oltp.migrations import migrate
from payments.systems.oltp.partitions import create_months, stray_rows
from payments.systems.status import StoreStatus
from payments.systems.stream import server as stream_server


def start_all(*, with_stream: bool = False) -> None:
    """Start what is embedded; apply migrations, coming months and collections; finish changes that a crash cut off.

    With the stream, the broker is started too. Raises UsageError when a store cannot be started or reached.
    """
    oltp_server.start()
    documents_server.start()
    migrate()
    create_months()
    apply_collections()
    finish_pending()
    if with_stream:
        stream_server.start()


def stop_all() -> None:
    """Stop what is embedded; the data stays."""
    stream_server.stop()
    documents_server.stop()
    oltp_server.stop()


def destroy_all() -> None:
    """Stop what is embedded and delete its data, wherever that was put."""
    stream_server.destroy()
    documents_server.destroy()
    oltp_server.destroy()


def statuses() -> list[StoreStatus]:
    """Ask each store how it is."""
    standby, broker = replica.store_status(), stream_server.store_status()
    return [
        _with_stray_rows(oltp_server.status()),
        *([] if standby is None else [standby]),
        documents_server.status(),
        *([] if broker is None else [broker]),
    ]


def _with_stray_rows(found: StoreStatus) -> StoreStatus:
    """Add a warning about rows that stand outside the partition of their month."""
    if not found.is_running:
        return found
    try:
        strays = sum(stray_rows().values())
    except (errors.UndefinedTable, errors.UndefinedFunction, errors.InvalidSchemaName, errors.InsufficientPrivilege):
        return found  # no schema yet, or a login that may not ask
    warnings = (f"{strays} rows outside their month: run payments partitions create",) if strays else ()
    return replace(found, missing=(*found.missing, *warnings))
