"""A small SVG writer: rectangles, text and curves with fixed decimals, so that the same input gives the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

from payments.diagrams.layout import FONT, Box, Point

INK = "#17202e"
MUTED = "#5b6675"
LINK = "#2b5fab"
PAPER = "#fbfcfe"
LINE = "#cfd7e2"


@dataclass(frozen=True)
class Face:
    """How text looks; ``anchor`` (start, middle, end) says which of its points is given."""

    size: float = 10
    fill: str = INK
    is_bold: bool = False
    anchor: str = "start"


@dataclass(frozen=True)
class Pen:
    """How a line looks; ``width`` in points."""

    stroke: str
    width: float = 1.2
    is_dashed: bool = False


@dataclass
class Canvas:
    """An SVG drawing of ``width`` by ``height`` points with a title for people who cannot see it."""

    width: float
    height: float
    title: str
    description: str
    _parts: list[str] = field(default_factory=list)

    def box(self, place: Box, *, fill: str, stroke: str = "none", radius: float = 0, is_dashed: bool = False) -> None:
        """Draw a rectangle with rounded corners."""
        dash = ' stroke-dasharray="4 3"' if is_dashed else ""
        self._parts.append(
            f'<rect x="{place.x:.1f}" y="{place.y:.1f}" width="{place.width:.1f}" height="{place.height:.1f}" '
            f'rx="{radius:.1f}" fill="{fill}" stroke="{stroke}"{dash}/>'
        )

    def header(self, place: Box, *, fill: str, radius: float) -> None:
        """Draw the upper part of a card: only its upper corners are round."""
        x, y, r = place.x, place.y, radius
        self._parts.append(
            f'<path d="M{x:.1f},{place.bottom:.1f}V{y + r:.1f}Q{x:.1f},{y:.1f} {x + r:.1f},{y:.1f}'
            f"H{place.right - r:.1f}Q{place.right:.1f},{y:.1f} {place.right:.1f},{y + r:.1f}"
            f'V{place.bottom:.1f}Z" fill="{fill}"/>'
        )

    def text(self, at: Point, text: str, face: Face, *, tail: str = "") -> None:
        """Write one line whose baseline starts, ends or is centred at a point; ``tail`` follows in the link colour."""
        style = ' font-weight="bold"' if face.is_bold else ""
        style += f' text-anchor="{face.anchor}"' if face.anchor != "start" else ""
        rest = ""
        if tail:
            small = f'font-size="{face.size - 1.2:g}" font-weight="normal"'
            rest = f'<tspan dx="5" {small} fill="{LINK}">{escape(tail)}</tspan>'
        self._parts.append(
            f'<text x="{at[0]:.1f}" y="{at[1]:.1f}" font-size="{face.size:g}" fill="{face.fill}"{style}>'
            f"{escape(text)}{rest}</text>"
        )

    def curve(self, points: Sequence[Point], pen: Pen, hint: str = "") -> None:
        """Draw a chain of cubic Bézier curves; ``hint`` is shown when the pointer rests on it."""
        first, rest = points[0], points[1:]
        path = f"M{first[0]:.1f},{first[1]:.1f}C" + " ".join(f"{x:.1f},{y:.1f}" for x, y in rest)
        dash = ' stroke-dasharray="5 3"' if pen.is_dashed else ""
        self._parts.append(
            f'<path d="{path}" fill="none" stroke="{pen.stroke}" stroke-width="{pen.width:g}"{dash}>'
            f"<title>{escape(hint)}</title></path>"
        )

    def line(self, start: Point, end: Point, pen: Pen) -> None:
        """Draw a straight line."""
        self._parts.append(
            f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
            f'stroke="{pen.stroke}" stroke-width="{pen.width:g}"/>'
        )

    def polyline(self, points: Sequence[Point], pen: Pen) -> None:
        """Draw straight pieces one after the other, their corners round."""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(
            f'<polyline points="{path}" fill="none" stroke="{pen.stroke}" stroke-width="{pen.width:g}" '
            'stroke-linejoin="round"/>'
        )

    def circle(self, centre: Point, radius: float, *, fill: str, stroke: str) -> None:
        """Draw a circle."""
        self._parts.append(
            f'<circle cx="{centre[0]:.1f}" cy="{centre[1]:.1f}" r="{radius:g}" fill="{fill}" stroke="{stroke}"/>'
        )

    def polygon(self, points: Sequence[Point], *, fill: str) -> None:
        """Draw a filled polygon."""
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._parts.append(f'<polygon points="{corners}" fill="{fill}"/>')

    def svg(self) -> bytes:
        """Return the drawing as a standalone SVG document."""
        size = f'width="{self.width:.0f}" height="{self.height:.0f}" viewBox="0 0 {self.width:.0f} {self.height:.0f}"'
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={quoteattr(self.title)} '
            f'font-family="{FONT}">',
            f"<title>{escape(self.title)}</title>",
            f"<desc>{escape(self.description)}</desc>",
            f'<rect width="100%" height="100%" fill="{PAPER}"/>',
            *self._parts,
            "</svg>",
        ]
        return ("\n".join(lines) + "\n").encode()
