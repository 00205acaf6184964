"""The star of each fact: the fact in the middle, the dimensions it refers to at both sides."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from payments.diagrams.erd import Style, draw_erd
from payments.diagrams.model import Entity
from payments.diagrams.themes import BLUE, GREEN

RIGHT = "dimensions at the right"


def facts_of(marts: Sequence[Entity]) -> list[Entity]:
    """Return the facts among the marts."""
    return [mart for mart in marts if mart.group == "facts"]


def star(marts: Sequence[Entity], fact: Entity) -> tuple[Entity, ...]:
    """Return a fact and the dimensions it refers to, these without references of their own.

    The dimensions stand at both sides, so that the sides are about equally long.
    """
    targets = {reference.target for reference in fact.references}
    rays = [replace(mart, references=()) for mart in marts if mart.name in targets and mart.group == "dimensions"]
    left: list[Entity] = []
    right: list[Entity] = []
    for ray in sorted(rays, key=lambda ray: (-len(ray.columns), ray.name)):
        if _length(left) <= _length(right):
            left.append(ray)
        else:
            right.append(replace(ray, group=RIGHT))
    return (*sorted(left, key=_name), fact, *sorted(right, key=_name))


@cache  # a star is drawn anew when one of its marts has changed
def draw_star(*entities: Entity) -> bytes:
    """Return the diagram of one star. Other facts that the fact refers to are named beside the column."""
    fact = next(entity for entity in entities if entity.group == "facts")
    drawn = {entity.name for entity in entities}
    style = Style(
        title=f"The star of {fact.name}",
        subtitle=grain_of(fact),
        themes={"dimensions": BLUE, RIGHT: BLUE, "facts": GREEN},
        group_titles={RIGHT: "dimensions"},
        codes=frozenset(reference.target for reference in fact.references) - drawn,
        tags=True,
        right=RIGHT,
    )
    return draw_erd(entities, style)


def grain_of(mart: Entity) -> str:
    """Return what one row is, as the description of the mart says, or nothing."""
    found = re.search(r"Grain: ([^.]*\.)", mart.comment)
    return found[1][0].upper() + found[1][1:] if found else ""


def _length(entities: Sequence[Entity]) -> int:
    """Return about how many rows the cards are high, one below the other."""
    return sum(len(entity.columns) + 3 for entity in entities)


def _name(entity: Entity) -> str:
    return entity.name
