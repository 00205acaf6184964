"""The generated files: what they are made from, writing them, and telling which of the committed ones are stale."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from payments.diagrams.architecture import Inventory, draw_architecture
from payments.diagrams.areas import AREAS, NEIGHBOURS, Area, area_of, entities_of, index_of, map_of, named_in
from payments.diagrams.bus_matrix import draw_bus_matrix
from payments.diagrams.catalogue import read_catalogue
from payments.diagrams.column_lineage import describe_lineage, fingerprint, is_compiled, made_from, read_rows
from payments.diagrams.document_model import describe_collections, other_stores, read_collections
from payments.diagrams.erd import Style, draw_erd
from payments.diagrams.manifest import load_manifest, models_of_layer, read_marts
from payments.diagrams.model import Entity
from payments.diagrams.stars import draw_star, facts_of, star
from payments.diagrams.themes import AMBER, BLUE, GREEN, GREY
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT
from payments.systems.documents.definitions import collection_definitions
from payments.systems.oltp.connection import connect

MANIFEST = PROJECT_ROOT / "target" / "manifest.json"
FOLDER = PROJECT_ROOT / "docs" / "generated"
OVERVIEW = PROJECT_ROOT / "models" / "overview.md"
LINEAGE = "column_lineage.md"
LAYERS = ("staging", "intermediate", "marts", "features")
# Comments that no page shows.
BUS_MATRIX = ("[//]: # (bus matrix: generated)", "[//]: # (end of the bus matrix)")
AREA_INDEX = ("[//]: # (areas: generated)", "[//]: # (end of the areas)")

OLTP_MAP_STYLE = Style(
    title="Operational store",
    subtitle="PostgreSQL, from its live catalogue: tables by area, and the foreign keys that lead from area to area.",
    themes={area.name: area.theme for area in AREAS},
    group_titles={area.name: area.title for area in AREAS},
    columns=2,
)


def generate(manifest_path: Path = MANIFEST) -> list[Path]:
    """Write every generated file that differs from what is there; return the paths of all that were looked at.

    The lineage of columns is looked at only where the manifest lets it be made: ``generate_lineage``.

    Raises:
        UsageError: dbt has written no manifest yet, or the operational store is not up.
    """
    files = draw_all(manifest_path)
    for path, content in files.items():
        if not _holds(path, content):  # an untouched file keeps its time: dbt parses less
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return [*files, *generate_lineage(manifest_path)]


def generate_lineage(manifest_path: Path = MANIFEST) -> list[Path]:
    """Write the lineage of columns when the SQL of models has changed, which takes half a minute; return what was made.

    It can be made only from a manifest that holds the compiled SQL of the models, such as ``dbt docs generate`` writes.

    Raises:
        UsageError: dbt has written no manifest yet.
    """
    lineage = FOLDER / LINEAGE
    manifest = load_manifest(manifest_path)
    digest = fingerprint(manifest)
    if not is_compiled(manifest) or made_from(lineage) == digest:
        return []
    lineage.write_text(describe_lineage(read_rows(manifest), digest), encoding="utf-8")
    return [lineage]


def stale(manifest_path: Path = MANIFEST) -> list[str]:
    """Return the generated files, relative to the project, that differ from what would be generated now.

    Raises:
        UsageError: as for ``generate``.
    """
    found = [path for path, content in draw_all(manifest_path).items() if not _holds(path, content)]
    if made_from(FOLDER / LINEAGE) != fingerprint(load_manifest(manifest_path)):
        found.append(FOLDER / LINEAGE)
    return [str(path.relative_to(PROJECT_ROOT)) for path in found]


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def draw_all(manifest_path: Path = MANIFEST) -> dict[Path, bytes]:
    """Return the content of every generated file but the lineage of columns, by its path.

    Raises:
        UsageError: as for ``generate``.
    """
    manifest = load_manifest(manifest_path)
    marts = read_marts(manifest)
    definitions = collection_definitions()
    documents = read_collections(definitions)
    with connect() as connection:
        tables = read_catalogue(connection)
    return {
        FOLDER / "architecture.svg": draw_architecture(take_inventory(tables, documents, manifest)),
        FOLDER / "oltp_erd.svg": draw_erd(map_of(tables), OLTP_MAP_STYLE),
        **{FOLDER / f"oltp_{area.name}.svg": draw_area(area, tables) for area in AREAS},
        FOLDER / "document_model.svg": draw_erd(documents, _document_style(documents)),
        FOLDER / "document_model.md": describe_collections(definitions).encode(),
        **{FOLDER / "stars" / f"{fact.name}.svg": draw_star(*star(marts, fact)) for fact in facts_of(marts)},
        FOLDER / "warehouse_erd.svg": draw_erd(keys_of(marts), _warehouse_style(marts)),
        FOLDER / "bus_matrix.md": describe_bus_matrix(marts).encode(),
        OVERVIEW: with_section(
            with_section(
                OVERVIEW.read_text(encoding="utf-8"), BUS_MATRIX, draw_bus_matrix(marts, "docs/generated/stars")
            ),
            AREA_INDEX,
            index_of(tables),
        ).encode(),
    }


def describe_bus_matrix(marts: list[Entity]) -> str:
    """Return the page of the bus matrix."""
    introduction = "Facts by the dimensions they refer to; the name of a fact leads to its star."
    return f"# Bus matrix\n\n{introduction}\n\n{draw_bus_matrix(marts, 'stars')}"


def take_inventory(tables: list[Entity], documents: list[Entity], manifest: dict[str, Any]) -> Inventory:
    """Return the names and counts that the architecture diagram shows."""
    sources = Counter(source["source_name"] for source in manifest["sources"].values())
    return Inventory(
        tables={area.title: sum(area_of(entity.name) is area for entity in tables) for area in AREAS},
        collections=[entity.name for entity in documents],
        # The platform's own tables tell of the landing; nothing lands in them.
        landed={source: count for source, count in sorted(sources.items()) if source != "platform"},
        models={layer: models_of_layer(manifest, layer) for layer in LAYERS},
    )


def draw_area(area: Area, tables: list[Entity]) -> bytes:
    """Return the diagram of one area of the operational store."""
    style = Style(
        title=f"Operational store: {area.title.lower()}",
        subtitle=area.purpose,
        themes={area.title: area.theme, NEIGHBOURS: GREY},
        group_titles={NEIGHBOURS: "in other areas"},
        codes=named_in(area),
        tags=True,
        left=NEIGHBOURS,
        columns=3,
    )
    return draw_erd(entities_of(area, tables), style)


def with_section(text: str, markers: tuple[str, str], section: str) -> str:
    """Return ``text`` with what stands between two markers replaced.

    Raises:
        UsageError: the markers are not there.
    """
    before, start, rest = text.partition(markers[0])
    _, end, after = rest.partition(markers[1])
    if not start or not end:
        raise UsageError(f"{OVERVIEW.name} lacks its markers: put {' and '.join(markers)} where the section belongs")
    return f"{before}{start}\n\n{section}\n{end}{after}"


def keys_of(marts: list[Entity]) -> list[Entity]:
    """Return the marts with the columns of their keys alone: the others are on the page, and the star, of each mart."""
    return [
        replace(
            mart,
            columns=tuple(
                column
                for column in mart.columns
                if column.name in mart.foreign_key_columns or column.name in mart.primary_key
            ),
        )
        for mart in marts
    ]


def _warehouse_style(marts: list[Entity]) -> Style:
    """Name dimensions beside the columns that refer to them: nearly every fact refers to nearly every dimension."""
    return Style(
        title="Warehouse",
        subtitle="Keys of the marts, drawn from the manifest. A relationships test proves every reference.",
        themes={"dimensions": BLUE, "facts": GREEN, "aggregates": AMBER},
        group_titles={},
        codes=frozenset(mart.name for mart in marts if mart.group == "dimensions"),
        tags=True,
        left="dimensions",
    )


def _document_style(documents: list[Entity]) -> Style:
    return Style(
        title="Document model",
        subtitle="MongoDB, drawn from the definitions of its collections. Names in blue stand in other stores.",
        themes={"documents": GREEN},
        group_titles={"documents": "database: payments"},
        codes=other_stores(documents),
        tags=True,
        foreign_key="reference",
        columns=4,
    )
