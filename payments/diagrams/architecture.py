"""The architecture diagram: where data is born, where it lands, what is built from it; names and counts are given."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from payments.diagrams.canvas import LINE, MUTED, Canvas, Face, Pen
from payments.diagrams.layout import Box, Point
from payments.diagrams.themes import AMBER, BLUE, GREEN, GREY, PURPLE, RED, Theme

MARGIN = 24
LEFT = 38
TOP = 128
GUTTER = 46
GAP = 34
HEADER = 25
ROW = 15.5
LETTER = 5.1  # the mean width of a letter at the size of the lines, on the safe side
PADDING = 8
LANE = 40
ARROW = Pen("#43526a", 1.6)
SCORES = Pen(RED.header, 1.6)


@dataclass(frozen=True)
class Inventory:
    """What the live platform holds.

    How many ``tables`` each area of the operational store has, the document ``collections``, ``landed`` counts of raw
    entities by source, and the names of dbt ``models`` by layer.
    """

    tables: Mapping[str, int]
    collections: Sequence[str]
    landed: Mapping[str, int]
    models: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Card:
    """A titled box: lines that start with ``#`` are small headings."""

    title: str
    lines: tuple[str, ...]
    theme: Theme

    @property
    def height(self) -> float:
        """The height in points."""
        return HEADER + 2 * PADDING + ROW * len(self.lines)


def draw_architecture(inventory: Inventory) -> bytes:
    """Return the architecture diagram as SVG."""
    columns = _columns(inventory)
    places = _place(columns)
    last = max(box.right for box in places.values())
    bottom = max(box.bottom for box in places.values())
    canvas = Canvas(
        width=last + 2 * MARGIN,
        height=bottom + LANE + 2 * MARGIN + 8,
        title="The payments data platform",
        description="Stores, landing, raw zone, warehouse layers, gate and fraud model, with what flows between them.",
    )
    canvas.text((MARGIN, MARGIN + 18), "The payments data platform", Face(20, is_bold=True))
    canvas.text((MARGIN, MARGIN + 38), _subtitle(inventory), Face(11.5, MUTED))
    _draw_frames(canvas, places, bottom)
    _draw_arrows(canvas, places, bottom)
    for _, cards in columns:
        for card in cards:
            _draw_card(canvas, card, places[card.title])
    return canvas.svg()


def _subtitle(inventory: Inventory) -> str:
    models = sum(len(names) for names in inventory.models.values())
    tables = sum(inventory.tables.values())
    return (
        f"{tables} operational tables and {len(inventory.collections)} document collections; "
        f"{sum(inventory.landed.values())} entities land, identity and keys never do; "
        f"{models} dbt models make the warehouse."
    )


def _columns(inventory: Inventory) -> list[tuple[float, list[Card]]]:
    """Return the least width and the cards of each column, from left to right and from top to bottom."""
    tables = [f"{area.lower()}: {_count(count, 'table', 'tables')}" for area, count in inventory.tables.items()]
    sources = _by_source(inventory.models.get("staging", ()))
    raw = [f"{source}: {_count(count, 'entity', 'entities')}" for source, count in inventory.landed.items()]
    return [
        (
            150,
            [
                Card("Simulation", ("one seed", "merchants, customers", "payments, fraud", "sessions, feedback"), GREY),
                Card("Vault", ("key ring", "encryption per person", "keyed tokens"), PURPLE),
            ],
        ),
        (
            176,
            [
                Card("PostgreSQL", tuple(tables), BLUE),
                Card("MongoDB", tuple(inventory.collections), GREEN),
                Card("Transaction files", ("CSV, Parquet, JSON lines", "any names, by a mapping"), GREY),
            ],
        ),
        (
            190,
            [
                Card("Quarantine", ("rule, reason, time", "card digits removed", "list and replay"), RED),
                Card(
                    "Landing writer",
                    ("contract of the entity", "card-number screen", "only what has changed", "exact counts"),
                    AMBER,
                ),
                Card("Raw zone", ("append-only Parquet", "one commit record a batch", *raw), AMBER),
            ],
        ),
        (
            186,
            [
                Card(
                    "Staging",
                    tuple(f"{source}: {_count(count, 'model', 'models')}" for source, count in sources.items()),
                    BLUE,
                ),
                Card(
                    "Compliance gate",
                    ("Great Expectations", "cards, currencies, amounts", "consent, retention", "blocks all behind it"),
                    RED,
                ),
            ],
        ),
        (
            196,
            [
                Card("Intermediate", tuple(inventory.models.get("intermediate", ())), BLUE),
                Card("Marts", tuple(inventory.models.get("marts", ())), BLUE),
            ],
        ),
        (150, [Card("Features", (*inventory.models.get("features", ()), "point in time"), BLUE)]),
        (
            160,
            [
                Card("Docs site", ("catalogue and lineage", "diagrams", "bus matrix"), GREY),
                Card("Fraud model", ("LightGBM", "time split, label delay", "beside a rules baseline"), GREEN),
            ],
        ),
    ]


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number} {singular if number == 1 else plural}"


def _by_source(staging: Sequence[str]) -> Counter[str]:
    """Count staging models by the source in ``stg_<source>__<entity>``."""
    return Counter(name.removeprefix("stg_").partition("__")[0] for name in staging)


def _place(columns: Sequence[tuple[float, Sequence[Card]]]) -> dict[str, Box]:
    """Stack the cards of each column, each column in the middle of the height of the tallest."""
    heights = [sum(card.height for card in cards) + GAP * (len(cards) - 1) for _, cards in columns]
    places: dict[str, Box] = {}
    x = float(LEFT)
    for (least, cards), height in zip(columns, heights, strict=True):
        width = max(least, *(LETTER * len(line) + 2 * PADDING for card in cards for line in card.lines))
        y = TOP + (max(heights) - height) / 2
        for card in cards:
            places[card.title] = Box(x, y, width, card.height)
            y += card.height + GAP
        x += width + GUTTER
    return places


def _draw_frames(canvas: Canvas, places: Mapping[str, Box], bottom: float) -> None:
    left, right = places["Simulation"].x - 14, places["Fraud model"].right + 14
    outer = Box(left, TOP - 52, right - left, bottom + LANE + 14 - (TOP - 52))
    canvas.box(outer, fill="#f4f6fa", stroke="#9aa7b8", radius=12, is_dashed=True)
    canvas.text((outer.x + 14, outer.y + 19), "Dagster", Face(12.5, GREY.header, is_bold=True))
    note = "stores, landed tables, models, gate, fraud model and docs are assets; one job makes them in order"
    canvas.text((outer.x + 68, outer.y + 19), note, Face(10.5, MUTED))
    inner = _warehouse(places)
    canvas.box(inner, fill=BLUE.frame, stroke=LINE, radius=10)
    canvas.text((inner.x + 14, inner.y + 19), "dbt warehouse", Face(12.5, BLUE.header, is_bold=True))
    canvas.text((inner.x + 110, inner.y + 19), "DuckDB by default, PostgreSQL as second engine", Face(10.5, MUTED))


def _warehouse(places: Mapping[str, Box]) -> Box:
    """Return the frame around what dbt builds, and the gate in the midst of it."""
    inside = [places[title] for title in ("Staging", "Compliance gate", "Intermediate", "Marts", "Features")]
    left, right = places["Staging"].x - 14, places["Features"].right + 14
    top = min(box.y for box in inside) - 30
    return Box(left, top, right - left, max(box.bottom for box in inside) + 12 - top)


def _draw_arrows(canvas: Canvas, places: Mapping[str, Box], bottom: float) -> None:
    for tail, head in (
        ("Simulation", "PostgreSQL"),
        ("Simulation", "MongoDB"),
        ("Vault", "PostgreSQL"),
        ("PostgreSQL", "Landing writer"),
        ("MongoDB", "Landing writer"),
        ("Transaction files", "Landing writer"),
        ("Raw zone", "Staging"),
        ("Compliance gate", "Intermediate"),
        ("Intermediate", "Features"),
        ("Features", "Fraud model"),
    ):
        _arrow(canvas, _across(places[tail], places[head]), ARROW)
    for tail, head in (
        ("Landing writer", "Quarantine"),
        ("Landing writer", "Raw zone"),
        ("Staging", "Compliance gate"),
        ("Intermediate", "Marts"),
    ):
        _arrow(canvas, _down_or_up(places[tail], places[head]), ARROW)
    site = places["Docs site"]
    _arrow(canvas, [(_warehouse(places).right, site.middle), (site.x, site.middle)], ARROW)
    model, documents = places["Fraud model"], places["MongoDB"]
    lane, aside, low = bottom + LANE / 2, documents.x - 28, documents.bottom - 14
    start = (model.right - 20, model.bottom)
    way = [start, (start[0], lane), (aside, lane), (aside, low), (documents.x, low)]
    _arrow(canvas, way, SCORES)
    canvas.text((places["Staging"].x, lane - 6), "fraud scores, and back through landing", Face(10.5, RED.header))


def _across(tail: Box, head: Box) -> list[Point]:
    """Return the way from the right side of one box, through the gutter before the other, to its left side."""
    turn = head.x - GUTTER / 2
    return [(tail.right, tail.middle), (turn, tail.middle), (turn, head.middle), (head.x, head.middle)]


def _down_or_up(tail: Box, head: Box) -> list[Point]:
    x = tail.x + tail.width / 2
    return [(x, tail.bottom), (x, head.y)] if head.y > tail.y else [(x, tail.y), (x, head.bottom)]


def _arrow(canvas: Canvas, way: Sequence[Point], pen: Pen) -> None:
    canvas.polyline(way, pen)
    (x, y), (from_x, from_y) = way[-1], way[-2]
    across, down = (x > from_x) - (x < from_x), (y > from_y) - (y < from_y)
    (left, low), (right, high) = (
        (x - 8 * across + 4 * turn * down, y - 8 * down + 4 * turn * across) for turn in (-1, 1)
    )
    canvas.polygon([(x, y), (left, low), (right, high)], fill=pen.stroke)


def _draw_card(canvas: Canvas, card: Card, place: Box) -> None:
    canvas.box(place, fill="#ffffff", stroke=card.theme.header, radius=6)
    canvas.header(Box(place.x, place.y, place.width, HEADER), fill=card.theme.header, radius=6)
    canvas.text((place.x + 10, place.y + 17), card.title, Face(11.5, "#ffffff", is_bold=True))
    for number, line in enumerate(card.lines):
        at = (place.x + 10, place.y + HEADER + PADDING + ROW * number + 11)
        if line.startswith("#"):
            canvas.text(at, line[1:], Face(9.5, card.theme.header, is_bold=True))
        else:
            canvas.text(at, line, Face(10))
