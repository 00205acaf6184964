"""A state of the operational store that belongs to an exact place of its log, under any traffic.

A logical slot that is being made tells from which place of the log it will read, and exports the snapshot that belongs
to it: exactly the transactions that committed before. The slot is temporary and is dropped as soon as the snapshot is
taken over. (PostgreSQL 18 documentation, section 54.4, CREATE_REPLICATION_SLOT.)
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import pq
from psycopg.conninfo import make_conninfo

from payments.systems.oltp.connection import dsn, last_error

_WAIT = "10s"
"""How long a transaction that is open may keep the slot from being made."""


class NoSlotError(Exception):
    """The server makes no logical slot: what it said."""


@contextmanager
def exported_snapshot() -> Iterator[tuple[int, str]]:
    """Yield a place of the log and the name of the snapshot that stands there; it can be taken over until the end.

    Raises:
        NoSlotError: the server makes no slot, or a transaction is open for too long.
    """
    options = f"-c lock_timeout={_WAIT}"
    conninfo = make_conninfo(dsn(), replication="database", options=options, application_name="payments snapshot")
    connection = pq.PGconn.connect(conninfo.encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            raise NoSlotError(last_error(connection))
        if connection.exec_(b"select pg_is_in_recovery()").get_value(0, 0) == b"t":
            raise NoSlotError("it is a standby, where a slot waits for what the primary does")
        name = f"payments_snapshot_{secrets.token_hex(4)}"
        made = connection.exec_(
            f"CREATE_REPLICATION_SLOT {name} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')".encode()
        )
        place, snapshot = made.get_value(0, 1), made.get_value(0, 2)
        if made.status != pq.ExecStatus.TUPLES_OK or place is None or snapshot is None:
            raise NoSlotError(last_error(connection))
        high, low = place.decode().split("/")
        yield (int(high, 16) << 32) + int(low, 16), snapshot.decode()
        connection.exec_(f"DROP_REPLICATION_SLOT {name}".encode())  # it would go with the connection, but later
    finally:
        connection.finish()
