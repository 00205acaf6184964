"""What the document server can do, asked by plain commands and once a process: nothing about it is assumed."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from pymongo import MongoClient
from pymongo.errors import ConfigurationError, OperationFailure

from payments.systems.documents.client import DATABASE

PROBE = "capability_probe"


@dataclass(frozen=True)
class Capabilities:
    """Whether the server has transactions over several documents, and change streams."""

    transactions: bool
    change_streams: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What the server lacks, one line each, with what is done instead."""
        return (
            *(() if self.transactions else ("no transactions: changes of several documents go through a journal",)),
            *(() if self.change_streams else ("no change streams: collections land by their cursor",)),
        )


@cache
def capabilities(client: MongoClient[dict[str, Any]]) -> Capabilities:
    """Return what the server of this client can do; only a server that answered is remembered.

    Raises:
        PyMongoError: the server cannot be asked.
    """
    return Capabilities(transactions=_has_transactions(client), change_streams=_has_change_streams(client))


def _has_transactions(client: MongoClient[dict[str, Any]]) -> bool:
    hello = client["admin"].command("hello")
    if "logicalSessionTimeoutMinutes" not in hello:
        return False
    try:
        # A server may know the words and refuse only at the end: so one read is carried through to its commit.
        with client.start_session() as session, session.start_transaction():
            client[DATABASE][PROBE].find_one({}, session=session)
    except (OperationFailure, ConfigurationError) as error:
        if error.has_error_label("TransientTransactionError"):
            raise
        return False
    return True


def _has_change_streams(client: MongoClient[dict[str, Any]]) -> bool:
    try:
        client[DATABASE].watch(max_await_time_ms=1).close()
    except (OperationFailure, ConfigurationError):
        return False
    return True
