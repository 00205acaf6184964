"""Which fact refers to which dimension: the bus matrix of the warehouse, as a Markdown table."""

from collections.abc import Sequence

from payments.diagrams.model import Entity


def draw_bus_matrix(entities: Sequence[Entity]) -> str:
    """Return one row for each fact or aggregate and one column for each dimension.

    A cell names the columns that refer to the dimension, each proved by a relationships test.
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
        lines.append(f"| `{fact.name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(fact: Entity, dimension: str) -> str:
    roles = [reference.columns[0] for reference in fact.references if reference.target == dimension]
    return ", ".join(f"`{role}`" for role in roles)
