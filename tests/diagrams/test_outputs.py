"""The generated files against the live stores, the collection files and the real dbt project."""

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import psycopg
import pytest

from payments.diagrams import generate, outputs, stale
from payments.diagrams.areas import AREAS, NAMED, area_of, map_of
from payments.diagrams.catalogue import read_catalogue
from payments.diagrams.document_model import describe_collections, other_stores, read_collections
from payments.diagrams.manifest import load_manifest, read_marts
from payments.diagrams.model import Column, Reference
from payments.diagrams.stars import facts_of
from payments.errors import UsageError
from payments.systems.documents.definitions import collection_definitions
from tests.dbt_project import Dbt

PAYMENTS = area_of("core.charges")


@pytest.fixture(scope="module")
def manifest_path(dbt: Dbt) -> Path:
    """The manifest of the dbt project as it stands."""
    return dbt.manifest()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder of this test alone to generate into."""
    overview = tmp_path / "models" / "overview.md"
    overview.parent.mkdir()
    markers = "\n\n".join((*outputs.BUS_MATRIX, *outputs.AREA_INDEX))
    overview.write_text(f"# Overview\n\n{markers}\n\nThe rest.\n")
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
    accounts = Reference(
        ("merchant_id", "ledger_account_id", "currency"),
        "ledger.accounts",
        ("merchant_id", "ledger_account_id", "currency"),
    )
    # Once each, although both are partitioned.
    assert tables["ledger.entries"].references.count(accounts) == 1
    assert len(tables["ledger.entries"].references) == 2
    assert not any(name.endswith(("_p0", "_default")) for name in tables)


def test_a_changed_table_changes_its_diagram(oltp: psycopg.Connection) -> None:
    before = outputs.draw_area(PAYMENTS, read_catalogue(oltp))
    with oltp.transaction(force_rollback=True):
        oltp.execute("alter table core.refunds add column cashier uuid references vault.subjects")
        changed = outputs.draw_area(PAYMENTS, read_catalogue(oltp))
    assert b"core.refunds(cashier) -&gt; vault.subjects(subject_id)" in changed
    assert b"cashier" not in before
    assert outputs.draw_area(PAYMENTS, read_catalogue(oltp)) == before


def test_every_table_stands_in_one_area_and_every_foreign_key_is_drawn(oltp: psycopg.Connection) -> None:
    tables = read_catalogue(oltp)
    placed = Counter(table for area in AREAS for table in area.tables)
    assert placed == Counter(table.name for table in tables)
    pictures = {area.name: ElementTree.fromstring(outputs.draw_area(area, tables)) for area in AREAS}  # noqa: S314
    drawn = {
        area: {"".join(found.itertext()) for found in picture.iter() if found.tag.endswith(("title", "text"))}
        for area, picture in pictures.items()
    }
    keys = 0
    for table in tables:
        area = area_of(table.name)
        for column in table.columns:
            assert any(text.startswith(column.name) for text in drawn[area.name])
        for reference in table.references:
            keys += 1
            line = (
                f"{table.name}({','.join(reference.columns)}) -> "
                f"{reference.target}({','.join(reference.target_columns)})"
            )
            name = f"{reference.columns[0]}\u2192 {reference.target}"
            assert line in drawn[area.name] or (reference.target in NAMED and name in drawn[area.name]), line
    ((declared,),) = oltp.execute("select count(*) from rules.foreign_keys").fetchall()
    assert keys == declared


def test_the_map_leads_from_area_to_area(oltp: psycopg.Connection) -> None:
    areas = {entity.group: entity for entity in map_of(read_catalogue(oltp))}
    assert list(areas) == [area.name for area in AREAS]
    assert sum(len(entity.columns) for entity in areas.values()) == len(read_catalogue(oltp))
    assert Reference(("core.charges",), areas["parties"].name, ("core.customers",)) in areas["payments"].references
    assert not any(reference.target == areas["operations"].name for reference in areas["payments"].references)


def test_a_table_without_an_area_says_where_to_put_it(oltp: psycopg.Connection) -> None:
    with oltp.transaction(force_rollback=True):
        oltp.execute("create table ops.astray (one integer)")
        with pytest.raises(UsageError, match=r"ops\.astray stands in no area"):
            outputs.draw_area(PAYMENTS, read_catalogue(oltp))


def test_collections_come_with_fields_and_references() -> None:
    collections = {entity.name: entity for entity in read_collections(collection_definitions())}
    sessions = collections["sessions"]
    assert sessions.column("customer_id") == Column("customer_id", "string", is_nullable=True)
    assert sessions.column("page_count") == Column("page_count", "integer", is_nullable=False)
    assert Reference(("session_id",), "sessions", ("_id",)) in collections["click_events"].references
    assert "core.customers" in other_stores(list(collections.values()))
    # A field of the second schema version only, and one within it.
    feedback = collections["feedback"]
    assert feedback.column("charge") == Column("charge", "object", is_nullable=True)
    assert feedback.column("charge.version") == Column("charge.version", "integer", is_nullable=False)
    assert feedback.column("thread[].author").data_type == "string"


def test_the_page_of_the_document_model_says_why() -> None:
    page = describe_collections(collection_definitions())
    for definition in collection_definitions():
        assert f"## {definition.collection}\n" in page
        for index in definition.all_indexes:
            assert f"| index `{index.name}` | " in page
            assert index.serves in page
    assert "| shard key | `merchant_id, _id hashed`: " in page


def test_the_page_of_each_fact_shows_its_star_and_no_star_is_left_over(manifest_path: Path) -> None:
    facts = facts_of(read_marts(load_manifest(manifest_path)))
    assert facts
    for fact in facts:
        assert f"![The star of {fact.name}](docs/generated/stars/{fact.name}.svg)" in fact.comment
    assert {path.stem for path in (outputs.FOLDER / "stars").iterdir()} == {fact.name for fact in facts}


@pytest.mark.usefixtures("servers")
def test_committed_diagrams_are_those_of_today(manifest_path: Path) -> None:
    assert stale(manifest_path) == [], "run `make docs` and commit what it changed"


@pytest.mark.usefixtures("servers")
def test_generating_writes_what_is_stale_and_leaves_the_rest_alone(manifest_path: Path, elsewhere: Path) -> None:
    areas = {f"oltp_{area.name}.svg" for area in AREAS}
    stars = {f"{fact.name}.svg" for fact in facts_of(read_marts(load_manifest(manifest_path)))}
    assert len(stale(manifest_path)) == 8 + len(areas) + len(stars)
    written = generate(manifest_path)
    assert {path.name for path in written} == areas | stars | {
        "architecture.svg",
        "oltp_erd.svg",
        "document_model.md",
        "document_model.svg",
        "warehouse_erd.svg",
        "bus_matrix.md",
        "overview.md",
    }
    overview = (elsewhere / "models" / "overview.md").read_text()
    assert "| [`fct_payments`](docs/generated/stars/fct_payments.svg) |" in overview
    assert "| [Ledger](docs/generated/oltp_ledger.svg) |" in overview
    assert overview.endswith("The rest.\n")
    lineage = "docs/generated/column_lineage.md"  # it needs the compiled SQL, which dbt parse does not make
    assert stale(manifest_path) == [lineage]

    times = {path: path.stat().st_mtime_ns for path in written}
    (elsewhere / "docs" / "generated" / "oltp_erd.svg").write_bytes(b"<svg/>")
    assert stale(manifest_path) == ["docs/generated/oltp_erd.svg", lineage]
    generate(manifest_path)
    touched = {path.name for path in written if path.stat().st_mtime_ns != times[path]}
    assert touched == {"oltp_erd.svg"}


def test_an_overview_without_markers_is_refused() -> None:
    with pytest.raises(UsageError, match="markers"):
        outputs.with_section("# Overview\n", outputs.BUS_MATRIX, "| a |\n")


def test_without_a_manifest_nothing_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dbt parse"):
        generate(tmp_path / "manifest.json")
