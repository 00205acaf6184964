"""Entities to a DOT source, and the placed source to an entity diagram with crow's feet."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from math import hypot

from payments.diagrams.canvas import LINE, LINK, MUTED, Canvas, Face, Pen
from payments.diagrams.layout import FONT, Box, Layout, Point, lay_out, quote, record_field
from payments.diagrams.model import Column, Entity, Reference
from payments.diagrams.themes import GREY, Theme

MARGIN = 24
TITLE_HEIGHT = 58
BADGE_WIDTH = 24
LEGEND_HEIGHT = 30

PRIMARY_KEY_COLOUR = "#a35b00"
FOREIGN_KEY_COLOUR = LINK


@dataclass(frozen=True)
class Style:
    """How one diagram is titled and coloured; groups without a theme get the grey one.

    ``codes`` are entities that nearly everything refers to (currencies, the calendar): lines to them are light, or,
    with ``tags``, replaced by the entity's name beside the referring column. Group ``left`` stands left of all others,
    group ``right`` right of what refers to it.
    Entities of a group that no line touches stand in so many ``columns``, instead of one below the other.
    """

    title: str
    subtitle: str
    themes: Mapping[str, Theme]
    group_titles: Mapping[str, str]
    codes: frozenset[str] = frozenset()
    tags: bool = False
    left: str | None = None
    right: str | None = None
    columns: int = 0
    foreign_key: str = "foreign key"


LINE_COLOURS = ("#1f4e8c", "#97344f", "#1d6b4f", "#6a3d91", "#a35b00", "#0f6d7f", "#7a3b12", "#4b5d16")
CODES_PEN = Pen("#94a2b5", 0.9)


def draw_erd(entities: Sequence[Entity], style: Style) -> bytes:
    """Return the entity diagram of ``entities`` as SVG. References to entities that are not drawn are left out."""
    known = {entity.name: entity for entity in entities}
    layout = lay_out(to_dot(entities, style))
    canvas = Canvas(
        width=max(layout.width, 640) + 2 * MARGIN,
        height=layout.height + TITLE_HEIGHT + LEGEND_HEIGHT + 2 * MARGIN,
        title=style.title,
        description=f"{len(entities)} entities: {', '.join(known)}",
    )
    canvas.text((MARGIN, MARGIN + 18), style.title, Face(20, is_bold=True))
    canvas.text((MARGIN, MARGIN + 38), style.subtitle, Face(11.5, MUTED))
    for group, frame in layout.frames.items():
        place = _shift(frame)
        canvas.box(place, fill=style.themes.get(group, GREY).frame, stroke=LINE, radius=10)
        header = style.themes.get(group, GREY).header
        title = style.group_titles.get(group, group)
        canvas.text((place.x + 14, place.y + 19), title, Face(12.5, header, is_bold=True))

    lines = _lines(entities, style)
    targets = [name for name in known if any(reference.target == name for _, reference in lines)]
    strong = (name for name in targets if name not in style.codes)
    pens = {name: Pen(colour, 1.3) for name, colour in zip(strong, cycle(LINE_COLOURS), strict=False)}
    lines.sort(key=lambda line: line[1].target in pens)  # light lines lie below the others
    for entity, reference in lines:
        points = _points(layout, entity, reference)
        if known[reference.target].group == style.right:
            points = points[::-1]
        _draw_reference(canvas, points, entity, reference, pens.get(reference.target, CODES_PEN))
    for entity in entities:
        rows = tuple(_shift(row) for row in layout.rows[entity.name])
        _draw_card(canvas, entity, rows, style)
    _draw_legend(canvas, style, MARGIN, canvas.height - MARGIN)
    return canvas.svg()


def to_dot(entities: Sequence[Entity], style: Style) -> str:
    """Return the DOT source: a record for each entity, a cluster for each group, edges from column port to column port.

    An edge runs from the referenced column to the referencing one, so that a table stands left of what refers to it; to
    a table of the group at the right it runs the other way.
    """
    lines = [
        "digraph erd {",
        "rankdir=LR; nodesep=0.28; ranksep=0.9; splines=spline; newrank=true;",
        f'node [shape=record, fontname="{FONT}", fontsize=10, margin="0.12,0.025"];',
        "edge [arrowhead=none, arrowtail=none];",
    ]
    for group in dict.fromkeys(entity.group for entity in entities):
        lines.append(f"subgraph {quote('cluster_' + group)} {{ label={quote(group)}; margin=14; fontsize=15;")
        lines += [_record(entity, style) for entity in entities if entity.group == group]
        lines.append("}")
    known = {entity.name: entity for entity in entities}
    for entity, reference in _lines(entities, style):
        target = known[reference.target]
        own, theirs = _ends(reference, target)
        tail, head = f"{quote(target.name)}:{_port(target, theirs)}", f"{quote(entity.name)}:{_port(entity, own)}"
        if target.group == style.right:
            tail, head = head, tail
        lines.append(f"{tail} -> {head} [id={quote(_edge_id(entity, reference))}];")
    referring = {entity.name for entity, _ in _lines(entities, style)}
    lines += [
        f"{quote(first.name)} -> {quote(second.name)} [style=invis];"
        for first in entities
        for second in entities
        if first.group == style.left != second.group and second.name not in referring
    ]
    if style.columns:
        lines += [
            f"{quote(left.name)} -> {quote(right.name)} [style=invis, weight=20];"
            for left, right in _abreast(entities, style)
        ]
    lines.append("}")
    return "\n".join(lines)


def _abreast(entities: Sequence[Entity], style: Style) -> list[tuple[Entity, Entity]]:
    """Return which entities without a line stand left of which: the tallest first, so that a row has one height."""
    lines = _lines(entities, style)
    touched = {name for entity, reference in lines for name in (entity.name, reference.target)}
    pairs = []
    for group in dict.fromkeys(entity.group for entity in entities):
        alone = [entity for entity in entities if entity.group == group and entity.name not in touched]
        alone.sort(key=lambda entity: -len(entity.columns))
        pairs += [pair for place, pair in enumerate(pairwise(alone), 1) if place % style.columns]
    return pairs


def _record(entity: Entity, style: Style) -> str:
    # A heading is bold and larger than the rows that the layout measures.
    header = record_field("entity", "mmm" + _label(entity) + "m" * (len(_label(entity)) // 6))
    fields = [
        record_field(
            _port(entity, column.name), "mmmmmmmm" + column.name + _tag(entity, column, style) + _type_text(column)
        )
        for column in entity.columns
    ]
    return f"{quote(entity.name)} [label={quote('|'.join([header, *fields]))}];"


def _port(entity: Entity, column: str) -> str:
    """Return the port of a column: its number, as ports take no special characters."""
    return f"c{[each.name for each in entity.columns].index(column)}"


def _label(entity: Entity) -> str:
    return entity.name.removeprefix(f"{entity.group}.")


def _lines(entities: Sequence[Entity], style: Style) -> list[tuple[Entity, Reference]]:
    """Return the references that are drawn as lines."""
    drawn = {entity.name for entity in entities} - (style.codes if style.tags else frozenset())
    return [(entity, reference) for entity in entities for reference in entity.references if reference.target in drawn]


def _tag(entity: Entity, column: Column, style: Style) -> str:
    """Return what stands beside a column instead of a line."""
    targets = [
        reference.target
        for reference in entity.references
        if style.tags and reference.target in style.codes and column.name in reference.columns
    ]
    return "".join(f"\u2192 {target}" for target in targets)


def _ends(reference: Reference, target: Entity) -> tuple[str, str]:
    """Return the columns that the line of a composite key joins: the last pair that the target's primary key holds.

    Keys lead with the tenant, so the last column is the one that says which row of the tenant is meant.
    """
    pairs = list(zip(reference.columns, reference.target_columns, strict=True))
    return next((pair for pair in reversed(pairs) if pair[1] in target.primary_key), pairs[-1])


def _edge_id(entity: Entity, reference: Reference) -> str:
    return f"{entity.name}({','.join(reference.columns)}) -> {reference.target}({','.join(reference.target_columns)})"


def _type_text(column: Column) -> str:
    return column.data_type + ("?" if column.is_nullable else "")


def _shift(box: Box) -> Box:
    return Box(box.x + MARGIN, box.y + MARGIN + TITLE_HEIGHT, box.width, box.height)


def _draw_card(canvas: Canvas, entity: Entity, rows: tuple[Box, ...], style: Style) -> None:
    theme = style.themes.get(entity.group, GREY)
    head, *body = rows
    outline = Box(head.x, head.y, head.width, rows[-1].bottom - head.y)
    canvas.box(outline, fill="#ffffff", stroke=theme.header, radius=5)
    canvas.header(head, fill=theme.header, radius=5)
    canvas.text((head.x + 8, head.middle + 3.9), _label(entity), Face(11, "#ffffff", is_bold=True))
    for column, row in zip(entity.columns, body, strict=True):
        is_key = column.name in entity.primary_key
        baseline = row.middle + 3.4
        if row is not body[0]:
            canvas.line((row.x + 1, row.y), (row.right - 1, row.y), Pen("#e6ebf1", 0.7))
        badges = [("PK", PRIMARY_KEY_COLOUR)] if is_key else []
        if column.name in entity.foreign_key_columns:
            badges.append(("FK", FOREIGN_KEY_COLOUR))
        for place, (badge, colour) in enumerate(badges):
            canvas.text((row.x + 6 + place * 13.5, baseline), badge, Face(7.8, colour, is_bold=True))
        tag = _tag(entity, column, style)
        canvas.text((row.x + 11 + BADGE_WIDTH, baseline), column.name, Face(10, is_bold=is_key), tail=tag)
        canvas.text((row.right - 7, baseline), _type_text(column), Face(9.3, MUTED, anchor="end"))


def _points(layout: Layout, entity: Entity, reference: Reference) -> tuple[Point, ...]:
    points = layout.curves[_edge_id(entity, reference)].points
    return tuple((x + MARGIN, y + MARGIN + TITLE_HEIGHT) for x, y in points)


def _draw_reference(canvas: Canvas, points: tuple[Point, ...], entity: Entity, reference: Reference, pen: Pen) -> None:
    """Draw a line from what is referred to, at the first point, to what refers to it."""
    canvas.curve(points, pen, hint=_edge_id(entity, reference))
    _draw_many(canvas, points[-1], points[-2], pen)
    is_optional = any(entity.column(column).is_nullable for column in reference.columns)
    _draw_one(canvas, points[0], points[1], pen, is_optional=is_optional)


def _direction(start: Point, towards: Point) -> Point:
    """Return the unit vector from ``start`` to ``towards``."""
    length = hypot(towards[0] - start[0], towards[1] - start[1]) or 1.0
    return (towards[0] - start[0]) / length, (towards[1] - start[1]) / length


def _along(start: Point, direction: Point, distance: float, aside: float = 0) -> Point:
    x, y = direction
    return start[0] + x * distance - y * aside, start[1] + y * distance + x * aside


def _draw_many(canvas: Canvas, end: Point, before: Point, pen: Pen) -> None:
    direction = _direction(end, before)
    tip = _along(end, direction, 8)
    for aside in (-4, 4):
        canvas.line(tip, _along(end, direction, 0, aside), pen)


def _draw_one(canvas: Canvas, start: Point, after: Point, pen: Pen, *, is_optional: bool) -> None:
    direction = _direction(start, after)
    canvas.line(_along(start, direction, 4, -3.5), _along(start, direction, 4, 3.5), pen)
    if is_optional:
        canvas.circle(_along(start, direction, 8.5), 2.6, fill="#ffffff", stroke=pen.stroke)


def _draw_legend(canvas: Canvas, style: Style, x: float, y: float) -> None:
    for badge, colour, meaning in (
        ("PK", PRIMARY_KEY_COLOUR, "primary key"),
        ("FK", FOREIGN_KEY_COLOUR, style.foreign_key),
    ):
        canvas.text((x, y), badge, Face(8.5, colour, is_bold=True))
        canvas.text((x + 16, y), meaning, Face())
        x += 92
    canvas.text((x, y), "type? may be null", Face())
    x += 104
    for is_optional, meaning, advance in ((False, "one to many", 118), (True, "zero or one to many", 156)):
        start, end = (x, y - 3.5), (x + 34, y - 3.5)
        canvas.line(start, end, Pen(MUTED))
        _draw_one(canvas, start, end, Pen(MUTED), is_optional=is_optional)
        _draw_many(canvas, end, start, Pen(MUTED))
        canvas.text((x + 42, y), meaning, Face())
        x += advance
    if style.tags:
        canvas.text((x, y), "\u2192 name", Face(10, LINK))
        canvas.text((x + 48, y), "refers to it", Face())
    elif style.codes:
        canvas.line((x, y - 3.5), (x + 34, y - 3.5), CODES_PEN)
        canvas.text((x + 42, y), "to a table of codes", Face())
