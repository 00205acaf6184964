"""From which columns a column of a mart comes."""

from pathlib import Path
from typing import Any

from payments.diagrams.column_lineage import (
    describe_lineage,
    fingerprint,
    is_compiled,
    lineage_site,
    made_from,
    read_rows,
)

REFUNDS = "select refund_id, amount as amount_minor from w.raw_oltp.refunds"
FACT = """
    with refunds as (select * from w.dev.stg_oltp__refunds),
    days as (select * from generate_series(1, 2) as series (day))
    select
        refunds.refund_id as refund_key, count(*) as row_count, 2 * sum(amount_minor) as doubled, max(days.day) as day
    from refunds cross join days group by refunds.refund_id
"""


def manifest() -> dict[str, Any]:
    """A source, its staging model and a fact."""
    source = {
        "resource_type": "source",
        "source_name": "oltp",
        "name": "refunds",
        "identifier": "refunds",
        "database": "w",
        "schema": "raw_oltp",
        "columns": {"refund_id": {}, "amount": {}},
        "meta": {"envelope": True},
    }
    fact = _model("marts", "fct_refunds", FACT, "model.payments.stg_oltp__refunds")
    fact["columns"] = {name: {} for name in ("refund_key", "row_count", "doubled", "day")}
    return {
        "nodes": {
            "model.payments.stg_oltp__refunds": _model(
                "staging", "stg_oltp__refunds", REFUNDS, "source.payments.refunds"
            ),
            "model.payments.fct_refunds": fact,
        },
        "sources": {"source.payments.refunds": source},
        "macros": {"macro.payments.double": {"macro_sql": "2 *"}},
    }


def _model(layer: str, name: str, sql: str, parent: str) -> dict[str, Any]:
    return {
        "resource_type": "model",
        "alias": name,
        "path": f"{layer}/{name}.sql",
        "database": "w",
        "schema": "dev",
        "columns": {},
        "compiled_code": sql,
        "checksum": {"checksum": sql},
        "depends_on": {"nodes": [parent]},
    }


def test_columns_are_followed_to_staging_and_sources() -> None:
    rows = {row.column: (row.staging, row.sources) for row in read_rows(manifest())}
    assert rows == {
        "refund_key": ("stg_oltp__refunds: refund_id", "oltp.refunds: refund_id"),
        "row_count": ("", "no column"),
        "doubled": ("stg_oltp__refunds: amount_minor", "oltp.refunds: amount"),
        "day": ("", "not followed: fct_refunds.day reads series.day of generate_series"),
    }


def test_what_cannot_be_followed_is_said() -> None:
    broken = manifest()
    broken["nodes"]["model.payments.stg_oltp__refunds"]["compiled_code"] = "select refund_id from w.raw_oltp.refunds"
    broken["nodes"]["model.payments.fct_refunds"]["columns"]["lost"] = {}
    rows = {row.column: row.sources for row in read_rows(broken)}
    assert rows["lost"].startswith("not followed: ")
    assert rows["doubled"].startswith("not followed: ")


def test_a_page_knows_what_it_was_made_from(tmp_path: Path) -> None:
    digest = fingerprint(manifest())
    page = tmp_path / "lineage.md"
    assert made_from(page) is None
    page.write_text(describe_lineage(read_rows(manifest()), digest))
    assert made_from(page) == digest
    changed = manifest()
    changed["macros"]["macro.payments.double"]["macro_sql"] = "3 *"
    assert fingerprint(changed) != digest

    site = lineage_site(page.read_text())
    assert "<tr><td>refund_key<td>stg_oltp__refunds: refund_id<td>oltp.refunds: refund_id" in site
    assert digest not in site


def test_a_parsed_manifest_has_no_sql_to_read() -> None:
    parsed = manifest()
    assert is_compiled(parsed)
    del parsed["nodes"]["model.payments.fct_refunds"]["compiled_code"]
    assert not is_compiled(parsed)
