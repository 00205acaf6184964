"""History from the log: two engines make of recorded changes what brute force makes of the changes themselves."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import duckdb
import psycopg

from ingestion.warehouse import load_postgres
from payments.settings import settings
from tests.conftest import Servers
from tests.warehouse.dbt import NO_UNIT_TESTS, Dbt
from tests.warehouse.recorded import Recorded

VERSIONS = """
    select
        merchant_id, version_number, _position, business_name, status, fee_fixed_minor,
        valid_from, valid_to, is_current, is_deleted_at_end
    from dev_history.hist_merchants
    order by merchant_id, version_number
"""


def test_versions_are_those_of_brute_force_in_both_engines(
    servers: Servers, platform_home: Path, dbt: Dbt, full_size: bool
) -> None:
    history = Recorded(100_000 if full_size else 5_000, seed=17)
    history.write(settings().raw_zone)
    load_postgres()
    for target in ("duckdb", "postgres"):
        outcome = dbt("build", "--select", "models/history", *NO_UNIT_TESTS, target=target)
        assert outcome.succeeded, outcome.output

    expected = history.versions()
    with duckdb.connect(str(settings().warehouse_path), read_only=True) as con:
        con.execute("set TimeZone = 'UTC'")
        assert con.execute(VERSIONS).fetchall() == expected
    with psycopg.connect(
        host="127.0.0.1", port=servers.oltp_port, user="warehouse", password="warehouse", dbname="warehouse"
    ) as warehouse:
        warehouse.execute("set timezone = 'UTC'")
        assert warehouse.execute(VERSIONS).fetchall() == expected

    # The history holds what is hard about it.
    ops = Counter(row["_op"] for row in history.records)
    assert min(ops[op] for op in "rcud") > len(history.records) // 100, ops
    assert any(version[6] == version[7] for version in expected), "a version that held for no time"
    assert any(
        first[0] == second[0] and first[7] < second[6] for first, second in pairwise(expected) if first[7] is not None
    ), "a gap between two lives"
    assert len({row["_position"][:8] for row in history.records}) > 2, "several epochs"
