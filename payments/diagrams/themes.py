"""The colours of the diagrams; white text on a header has a contrast of at least 5 to 1."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """Colours of one group: the header of its cards, the fill of its frame."""

    header: str
    frame: str


GREY = Theme(header="#4a5565", frame="#f1f3f6")
BLUE = Theme(header="#1f4e8c", frame="#eef3fb")
GREEN = Theme(header="#1d6b4f", frame="#ecf6f1")
PURPLE = Theme(header="#6a3d91", frame="#f5f0fa")
RED = Theme(header="#97344f", frame="#fbeff2")
TEAL = Theme(header="#0f6272", frame="#e9f5f7")
AMBER = Theme(header="#8a5a00", frame="#fcf5e6")
