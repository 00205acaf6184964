"""Fixtures of the tests of landing."""

from collections.abc import Iterator

import psycopg
import pytest

from payments.settings import settings
from tests.conftest import Servers


@pytest.fixture
def warehouse(servers: Servers) -> Iterator[psycopg.Connection]:
    """A connection to the warehouse, which holds no raw tables."""
    known = settings()
    with psycopg.connect(
        host="127.0.0.1",
        port=servers.oltp_port,
        user=known.warehouse_user,
        password=known.warehouse_password,
        dbname=known.warehouse_dbname,
        autocommit=True,
    ) as connection:
        for schema in ("raw_oltp", "raw_documents", "raw_files", "raw_platform"):
            connection.execute(f"drop schema if exists {schema} cascade".encode())
        yield connection
