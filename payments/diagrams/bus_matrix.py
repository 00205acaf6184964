"""Which fact refers to which dimension: the bus matrix of the warehouse, as a Markdown table."""

from collections.abc import Sequence

from payments.diagrams.model import Entity


def draw_bus_matrix(entities: Sequence[Entity], stars: str) -> str:
    """Return one row for each fact or aggregate and one column for each dimension.

    A cell names the columns that refer to the dimension, each proved by a relationships test. The name of a fact leads
    to its star in the folder ``stars``.
    """
    dimensions = [entity for entity in entities if entity.group == "dimensions"]
    facts = [entity for entity in entities if entity.group != "dimensions" and entity.references]
    titles = [f"`{dimension.name}`" for dimension in dimensions]
    lines = [
        "| | " + " | ".join(titles) + " |",
        "|---|" + ":-:|" * len(titles),
    ]
    for fact in facts:
        cells = [_cell(fact, dimension.name) for dimension in dimensions]
        lines.append(f"| {_title(fact, stars)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _title(fact: Entity, stars: str) -> str:
    return f"[`{fact.name}`]({stars}/{fact.name}.svg)" if fact.group == "facts" else f"`{fact.name}`"


def _cell(fact: Entity, dimension: str) -> str:
    roles = [reference.columns[0] for reference in fact.references if reference.target == dimension]
    return ", ".join(f"`{role}`" for role in roles)
