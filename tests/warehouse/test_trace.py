"""From a figure to its raw rows: what is written down of every model, and a trace of a warehouse made from a file."""

import json
import shutil
from functools import cache, partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from ingestion.compaction import compact
from payments.cli import app
from payments.digest import MANIFEST
from payments.errors import UsageError
from payments.settings import settings
from payments.trace.plan import Origin, declared, plan_of
from payments.trace.rows import Trace, trace
from tests.dbt_project import Dbt
from tests.warehouse.conftest import Built
from tests.warehouse.traces import faults_of

ANY = Origin()


def test_what_every_mart_is_made_of_is_written_down_and_is_upstream_of_it(dbt: Dbt) -> None:
    manifest: dict[str, Any] = json.loads(dbt.manifest().read_text(encoding="utf-8"))
    nodes = {node["alias"]: node for node in manifest["nodes"].values() if node["resource_type"] in ("model", "seed")}
    seeds = frozenset(name for name, node in nodes.items() if node["resource_type"] == "seed")

    @cache
    def upstream_of(unique_id: str) -> frozenset[str]:
        parents: list[str] = manifest["parent_map"].get(unique_id, [])
        return frozenset(parent.split(".")[2] for parent in parents).union(*map(upstream_of, parents))

    marts = {name for name, node in nodes.items() if "marts" in node["fqn"]}
    assert marts - declared().keys() == set()
    for mart in marts:
        plan = plan_of(mart, declared(), seeds)
        assert set(plan.models) - {mart} <= upstream_of(nodes[mart]["unique_id"]) | BESIDE, mart
        assert plan.models == (mart,) or plan.raw or seeds & set(plan.models) or "stg_platform__batches" in plan.models


# What a row of staging has rows of another relation for.
BESIDE = {"stg_platform__quarantine", "stg_oltp__balance_transaction_fees", "stg_oltp__coupons", "hist_prices"}


def test_a_model_stands_behind_all_that_is_made_of_it() -> None:
    made_of = {"a": {"b": ANY, "c": ANY}, "b": {"d": ANY}, "c": {"b": ANY, "seed": ANY}, "d": {"oltp.charges": ANY}}

    plan = plan_of("a", made_of, frozenset({"seed"}))

    assert [name for name in plan.models if name != "seed"] == ["a", "c", "b", "d"]
    assert plan.raw == {"d": "oltp.charges"}
    assert {link.model for link in plan.links_to("b")} == {"a", "c"}


def test_staging_is_made_of_its_raw_relation() -> None:
    assert plan_of("stg_oltp__ledger_entries", {}).raw == {"stg_oltp__ledger_entries": "oltp.ledger_entries"}


def test_a_way_that_is_not_written_down_is_said() -> None:
    with pytest.raises(UsageError, match="What b is made of is not written down"):
        plan_of("a", {"a": {"b": ANY}})


def test_a_row_is_found_by_equal_columns_and_by_a_condition() -> None:
    origin = Origin(by=("merchant_id",), on="up.at = (select max(at) from {up})")
    assert origin.condition("wh.t") == 'up."merchant_id" = this."merchant_id" and (up.at = (select max(at) from wh.t))'


@pytest.fixture
def files(built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of a warehouse that was built from a file, with a raw zone to spoil."""
    shutil.copytree(built.raw, tmp_path / "raw")
    monkeypatch.setenv("PAYMENTS_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(built.warehouse))
    settings.cache_clear()
    return tmp_path / "raw"


def largest_month(built: Built, dbt: Dbt) -> Trace:
    """The trace of the month with the most payments."""
    return trace("agg_revenue_monthly", {"revenue_monthly_key": key_of_it(built)}, limit=2, manifest=dbt.manifest())


def key_of_it(built: Built) -> str:
    with built.connect() as con:
        found = con.execute("select arg_max(revenue_monthly_key, payment_count) from dev_marts.agg_revenue_monthly")
        return str(found.fetchall()[0][0])


def test_a_figure_is_traced_to_the_rows_of_the_file(built: Built, dbt: Dbt, files: Path) -> None:
    found = largest_month(built, dbt)

    assert (found.holds, faults_of(found)) == (True, [])
    (month,) = found.steps[0].rows
    steps = {step.name: step for step in found.steps}
    (raw,) = [step for step in found.raw if step.relation == "files.transactions"]
    assert raw.count == steps["stg_files__transactions"].count == month["payment_count"] > 2
    assert len(raw.rows) == len(steps["stg_files__transactions"].rows) == 2
    assert {row["transaction_id"] for row in raw.rows} <= {row["transaction_id"] for row in built.rows}
    (batch,) = found.batches
    assert (batch.entity, batch.read, batch.accepted, batch.quarantined, batch.rows) == (
        "transactions",
        len(built.rows) + 1,
        len(built.rows),
        1,
        raw.count,
    )
    assert [(files / file).is_file() for file in batch.files] == [True]


@pytest.mark.usefixtures("files")
def test_the_command_prints_every_step_with_all_of_its_rows_counted(
    built: Built, dbt: Dbt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("payments.trace.rows.trace", partial(trace, manifest=dbt.manifest()))
    found = largest_month(built, dbt)

    ran = CliRunner().invoke(app, ["trace", "agg_revenue_monthly", f"revenue_monthly_key={key_of_it(built)}"])

    assert ran.exit_code == 0, ran.output
    steps = [f"{step.name}: {step.count} row" for step in found.steps if step.count and not step.is_seed]
    assert {line for line in steps if line not in ran.output} == set()
    assert f"raw files.transactions: {found.raw[0].count} rows, of stg_files__transactions" in ran.output
    assert "transaction_id=" in ran.output
    assert "seeds/exchange_rates.csv" in ran.output
    assert found.batches[0].files[0] in ran.output


def test_what_was_compacted_since_is_found(built: Built, dbt: Dbt, files: Path) -> None:
    before = largest_month(built, dbt)
    compact()
    for record in (files / "commits").iterdir():
        record.unlink()

    assert largest_month(built, dbt).batches == before.batches
    assert faults_of(before) == []


def test_a_raw_row_that_is_lost_is_seen(built: Built, dbt: Dbt, files: Path) -> None:
    whole = largest_month(built, dbt)
    (path,) = [files / file for batch in whole.batches for file in batch.files]
    one = whole.raw[0].rows[0]["transaction_id"]
    with duckdb.connect() as con:
        con.read_parquet([str(path).replace("[", "[[]").replace("*", "[*]")]).create("landed")
        con.execute("delete from landed where transaction_id = ?", [one])
        con.table("landed").write_parquet(str(path))

    found = largest_month(built, dbt)

    assert not found.holds
    assert faults_of(found) == [
        f"{whole.raw[0].count} versions of files.transactions, {whole.raw[0].count - 1} raw rows"
    ]


@pytest.mark.usefixtures("files")
def test_a_cent_that_was_changed_is_seen(
    built: Built, dbt: Dbt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "changed.duckdb"
    shutil.copy(built.warehouse, changed)
    with duckdb.connect(str(changed)) as con:
        one = "payment_key = (select min(payment_key) from dev_marts.fct_payments)"
        con.execute(f"update dev_marts.fct_payments set amount_minor = amount_minor + 1 where {one}")
        ((key, minor),) = con.execute(
            f"select payment_key, amount_minor from dev_marts.fct_payments where {one}"
        ).fetchall()
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(changed))
    settings.cache_clear()

    found = trace("fct_payments", {"payment_key": key}, manifest=dbt.manifest())

    assert not found.holds
    assert faults_of(found) == [
        f"fct_payments.amount_minor is {minor}, sum(amount_minor) of int_payments_converted is {minor - 1}"
    ]


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("agg_revenue", {}, "no model agg_revenue: did you mean agg_revenue_daily"),
        ("currencies", {}, "no model currencies"),
        ("fct_payments", {"currenzy": "EUR"}, "no column currenzy: did you mean currency"),
        ("fct_payments", {"paid_on": "yesterday"}, "paid_on of fct_payments is a date, which 'yesterday' is not"),
        ("fct_payments", {"currency": "it's"}, "No row of fct_payments has currency=it's"),
        ("fct_payments", {"payment_key": ""}, "No row of fct_payments has payment_key="),
        ("fct_payments_live", {}, "not written down"),
    ],
)
def test_a_wrong_question_is_one_line(model: str, given: dict[str, str], says: str, dbt: Dbt, files: Path) -> None:
    assert files.is_dir()
    with pytest.raises(UsageError, match=says):
        trace(model, given, manifest=dbt.manifest())


def test_without_a_build_there_is_no_trace(
    files: Path, dbt: Dbt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="run dbt build"):
        trace("fct_payments", {}, manifest=tmp_path / MANIFEST.name)
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(tmp_path / "empty.duckdb"))
    settings.cache_clear()
    with duckdb.connect(str(tmp_path / "empty.duckdb")) as con:
        con.execute("create schema raw_platform")
        con.execute("create table raw_platform.batches (source_at timestamptz)")
    with pytest.raises(UsageError, match="has no fct_payments: run dbt build"):
        trace("fct_payments", {}, manifest=dbt.manifest())
    assert files.is_dir()
