"""Entity and architecture diagrams as SVG."""

from dataclasses import replace
from xml.etree import ElementTree

from payments.diagrams.architecture import Inventory, draw_architecture
from payments.diagrams.erd import Style, draw_erd, to_dot
from payments.diagrams.layout import lay_out
from payments.diagrams.manifest import read_marts
from payments.diagrams.model import Column, Entity, Reference
from payments.diagrams.stars import RIGHT, draw_star, star
from payments.diagrams.themes import BLUE
from tests.diagrams.manifests import manifest

SVG = "{http://www.w3.org/2000/svg}"
PLAIN = Style(title="Marts", subtitle="", themes={"facts": BLUE}, group_titles={})
TAGGED = Style(title="Marts", subtitle="", themes={}, group_titles={}, codes=frozenset({"dim_date"}), tags=True)


def _texts(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]  # noqa: S314


def _hints(svg: bytes) -> set[str]:
    found = ElementTree.fromstring(svg).iterfind(f"{SVG}path/{SVG}title")  # noqa: S314
    return {title.text or "" for title in found}


def test_every_entity_column_and_reference_is_drawn() -> None:
    marts = read_marts(manifest())
    svg = draw_erd(marts, PLAIN)
    texts = _texts(svg)
    for entity in marts:
        assert entity.name in texts
        assert {column.name for column in entity.columns} <= set(texts)
    assert _hints(svg) == {
        "fct_payments(merchant_key) -> dim_merchant(merchant_key)",
        "fct_payments(paid_on) -> dim_date(date_day)",
        "fct_payments(settled_on) -> dim_date(date_day)",
        "fct_refunds(payment_key) -> fct_payments(payment_key)",
        "fct_refunds(refunded_payment_key) -> fct_refunds(refund_key)",
    }


def test_the_same_input_gives_the_same_bytes() -> None:
    assert draw_erd(read_marts(manifest()), PLAIN) == draw_erd(read_marts(manifest()), PLAIN)


def test_codes_are_named_beside_the_column_instead_of_a_line() -> None:
    svg = draw_erd(read_marts(manifest()), TAGGED)
    assert "paid_on→ dim_date" in _texts(svg)
    assert not any("dim_date" in hint for hint in _hints(svg))


def test_a_line_joins_the_rows_of_its_columns() -> None:
    marts = {entity.name: entity for entity in read_marts(manifest())}
    layout = lay_out(to_dot(list(marts.values()), PLAIN))
    curve = layout.curves["fct_payments(merchant_key) -> dim_merchant(merchant_key)"]
    referenced, referring = layout.rows["dim_merchant"][1], layout.rows["fct_payments"][2]
    assert referenced.y <= curve.points[0][1] <= referenced.bottom
    assert referring.y <= curve.points[-1][1] <= referring.bottom
    assert curve.points[0][0] >= referenced.right - 1
    assert curve.points[-1][0] <= referring.x + 1


def test_a_star_has_dimensions_at_both_sides_and_names_other_facts() -> None:
    marts = read_marts(manifest())
    payments = next(mart for mart in marts if mart.name == "fct_payments")
    entities = star(marts, payments)
    assert [(entity.name, entity.group) for entity in entities] == [
        ("dim_merchant", "dimensions"),
        ("fct_payments", "facts"),
        ("dim_date", RIGHT),
    ]
    layout = lay_out(to_dot(entities, replace(PLAIN, right=RIGHT)))
    left, middle, right = (layout.rows[entity.name][0] for entity in entities)
    assert left.right < middle.x < middle.right < right.x
    assert _hints(draw_star(*entities)) == {
        "fct_payments(merchant_key) -> dim_merchant(merchant_key)",
        "fct_payments(paid_on) -> dim_date(date_day)",
        "fct_payments(settled_on) -> dim_date(date_day)",
    }

    refunds = draw_star(*star(marts, marts[-1]))
    assert "payment_key→ fct_payments" in _texts(refunds)


def test_a_composite_key_is_joined_where_it_tells_rows_apart() -> None:
    accounts = Entity("ledger", "accounts", (_text("account_id"), _text("currency")), ("account_id",), ())
    reference = Reference(("account_id", "currency"), "accounts", ("account_id", "currency"))
    entries = Entity("ledger", "entries", (_text("account_id"), _text("currency")), ("account_id",), (reference,))
    assert '"accounts":c0 -> "entries":c0' in to_dot([accounts, entries], PLAIN)


def test_names_with_special_characters_are_drawn_as_they_are() -> None:
    odd = Entity("facts", 'a<b>|{c}"d"&', (_text("x<y> | {z}\\"),), (), ())
    assert {'a<b>|{c}"d"&', "x<y> | {z}\\"} <= set(_texts(draw_erd([odd], PLAIN)))


def test_architecture_shows_what_the_inventory_holds() -> None:
    inventory = Inventory(
        tables={"Payments": 2, "Ledger": 1},
        collections=["sessions"],
        landed={"files": 1, "oltp": 3},
        models={
            "staging": ["stg_oltp__charges", "stg_oltp__refunds", "stg_files__transactions"],
            "intermediate": ["int_payments_unioned"],
            "marts": ["fct_payments"],
            "features": ["feat_payments"],
        },
    )
    texts = _texts(draw_architecture(inventory))
    for shown in (
        "payments: 2 tables",
        "ledger: 1 table",
        "sessions",
        "oltp: 3 entities",
        "files: 1 entity",
        "oltp: 2 models",
        "files: 1 model",
        "fct_payments",
        "feat_payments",
    ):
        assert shown in texts
    assert any("3 operational tables and 1 document collections; 4 entities land" in text for text in texts)


def _text(name: str) -> Column:
    return Column(name, "text", is_nullable=False)
