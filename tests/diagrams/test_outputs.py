"""The generated files against the live stores, the collection files and the real dbt project."""

from pathlib import Path

import psycopg
import pytest

from payments.diagrams import generate, outputs, stale
from payments.diagrams.catalogue import read_catalogue
from payments.diagrams.document_model import other_stores, read_collections
from payments.diagrams.erd import draw_erd
from payments.diagrams.model import Column, Reference
from payments.errors import UsageError
from payments.systems.documents.collections import collection_definitions
from tests.dbt_command import run_dbt


@pytest.fixture(scope="module")
def manifest_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of the dbt project as it stands."""
    target = tmp_path_factory.mktemp("target")
    run_dbt(target, "parse")
    return target / "manifest.json"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of this test alone to generate into."""
    overview = tmp_path / "models" / "overview.md"
    overview.parent.mkdir()
    overview.write_text(f"# Overview\n\n{outputs.START}\n\n{outputs.END}\n\nThe rest.\n")
    monkeypatch.setattr(outputs, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(outputs, "FOLDER", tmp_path / "docs" / "generated")
    monkeypatch.setattr(outputs, "OVERVIEW", overview)
    return tmp_path


def test_catalogue_reads_tables_columns_and_keys(oltp: psycopg.Connection) -> None:
    tables = {entity.name: entity for entity in read_catalogue(oltp)}
    charges = tables["core.charges"]
    assert charges.primary_key == ("merchant_id", "charge_id")
    assert charges.column("currency") == Column("currency", "char(3)", is_nullable=False)
    assert charges.column("anomaly_score") == Column("anomaly_score", "numeric(5,4)", is_nullable=True)
    assert charges.comment.startswith("One row a charge attempt")
    methods = Reference(
        ("merchant_id", "payment_method_id"), "core.payment_methods", ("merchant_id", "payment_method_id")
    )
    assert methods in charges.references
    # A key that leaves its schema, and one whose columns are not the primary key of its target.
    assert Reference(("subject_id",), "vault.subjects", ("subject_id",)) in tables["identity.customers"].references
    assert tables["ledger.entries"].references[0].target_columns == ("ledger_account_id", "currency")


def test_a_changed_table_changes_its_diagram(oltp: psycopg.Connection) -> None:
    before = draw_erd(read_catalogue(oltp), outputs.OLTP_STYLE)
    with oltp.transaction(force_rollback=True):
        oltp.execute("alter table core.refunds add column cashier text references core.merchants")
        changed = draw_erd(read_catalogue(oltp), outputs.OLTP_STYLE)
    assert b"core.refunds(cashier) -&gt; core.merchants(merchant_id)" in changed
    assert b"cashier" not in before
    assert draw_erd(read_catalogue(oltp), outputs.OLTP_STYLE) == before


def test_collections_come_with_fields_and_references() -> None:
    collections = {entity.name: entity for entity in read_collections(collection_definitions())}
    sessions = collections["sessions"]
    assert sessions.column("customer_id") == Column("customer_id", "string", is_nullable=True)
    assert sessions.column("page_count") == Column("page_count", "integer", is_nullable=False)
    assert Reference(("session_id",), "sessions", ("_id",)) in collections["click_events"].references
    assert "core.customers" in other_stores(list(collections.values()))


@pytest.mark.usefixtures("servers")
def test_committed_diagrams_are_those_of_today(manifest_path: Path) -> None:
    assert stale(manifest_path) == [], "run `make docs` and commit what it changed"


@pytest.mark.usefixtures("servers")
def test_generating_writes_what_is_stale_and_leaves_the_rest_alone(manifest_path: Path, elsewhere: Path) -> None:
    assert len(stale(manifest_path)) == 7
    written = generate(manifest_path)
    assert {path.name for path in written} == {
        "architecture.svg",
        "oltp_erd.svg",
        "document_model.svg",
        "payments_star.svg",
        "warehouse_erd.svg",
        "bus_matrix.md",
        "overview.md",
    }
    overview = (elsewhere / "models" / "overview.md").read_text()
    assert "| `fct_payments` |" in overview
    assert overview.endswith("The rest.\n")
    assert stale(manifest_path) == []

    times = {path: path.stat().st_mtime_ns for path in written}
    (elsewhere / "docs" / "generated" / "oltp_erd.svg").write_bytes(b"<svg/>")
    assert stale(manifest_path) == ["docs/generated/oltp_erd.svg"]
    generate(manifest_path)
    touched = {path.name for path in written if path.stat().st_mtime_ns != times[path]}
    assert touched == {"oltp_erd.svg"}


def test_an_overview_without_markers_is_refused() -> None:
    with pytest.raises(UsageError, match="markers"):
        outputs.with_bus_matrix("# Overview\n", "| a |\n")


def test_without_a_manifest_nothing_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dbt parse"):
        generate(tmp_path / "manifest.json")
