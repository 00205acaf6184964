"""From which columns of staging and sources each column of a mart comes, read from the SQL that dbt compiled."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.lineage import Node, lineage

from ingestion.contracts import ENVELOPE

MARK = "[//]: # (made from "  # a comment that no page shows
INTRODUCTION = (
    "From which columns the value of a column is made, through all models between. What rows are joined, filtered and "
    "grouped by is not told here: that is in the SQL of the models. A column of no other column is a count of rows "
    "or a constant. Not followed is a value of rows that a function makes, such as a calendar, and the page says so."
)
NO_COLUMN = "no column"

Place = tuple[str, str]
"""The unique id of a node in the manifest, and a column."""


@dataclass
class Step:
    """What a column reads one step before it, and what of that could not be followed."""

    places: set[Place] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


@dataclass
class Origin:
    """Where a column comes from: columns by table in staging and in the sources, and what could not be followed."""

    staging: set[tuple[str, str]] = field(default_factory=set)
    sources: set[tuple[str, str]] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)

    def add(self, other: "Origin") -> None:
        """Come from what another column comes from, too."""
        self.staging |= other.staging
        self.sources |= other.sources
        self.lost |= other.lost


class ColumnLineage:
    """The origins of the columns of all models of a manifest with compiled SQL."""

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        self._nodes: dict[str, Mapping[str, Any]] = {**manifest["nodes"], **manifest["sources"]}
        self._read: dict[str, dict[str, Step]] = {}
        self._origins: dict[Place, Origin] = {}

    @cached_property
    def _by_relation(self) -> dict[tuple[str, str], str]:
        return {
            (node["schema"], node.get("identifier") or node["alias"]): key
            for key, node in self._nodes.items()
            if node["resource_type"] in ("model", "source", "seed", "snapshot")
        }

    def origin(self, model: str, column: str) -> Origin:
        """Return where a column of a model comes from."""
        place = (model, column)
        if place not in self._origins:
            self._origins[place] = self._follow(model, column)
        return self._origins[place]

    def _follow(self, model: str, column: str) -> Origin:
        node = self._nodes[model]
        if node["resource_type"] != "model":
            table = f"{node['source_name']}.{node['name']}" if node["resource_type"] == "source" else node["name"]
            return Origin(sources={(table, column)})
        found = Origin(staging={(node["alias"], column)} if node["path"].startswith("staging/") else set())
        step = self._parents(model).get(column) or Step(lost={f"{node['alias']} gives no column {column}"})
        found.lost |= step.lost
        for parent, name in sorted(step.places):
            found.add(self.origin(parent, name))
        return found

    def _parents(self, model: str) -> dict[str, Step]:
        """Return the columns that each column of a model reads one step before it, or why that is not known."""
        if model not in self._read:
            self._read[model] = self._read_sql(model)
        return self._read[model]

    def _read_sql(self, model: str) -> dict[str, Step]:
        node = self._nodes[model]
        schema: dict[str, Any] = {}
        for parent in sorted(node["depends_on"]["nodes"]):
            other = self._nodes[parent]
            table = other.get("identifier") or other["alias"]
            columns = dict.fromkeys(self._columns(parent), "text")
            schema.setdefault(other["database"], {}).setdefault(other["schema"], {})[table] = columns
        try:
            graph = lineage(None, node["compiled_code"], schema=schema, dialect="duckdb")
        except SqlglotError as error:
            reason = f"the SQL of {node['alias']} cannot be read: {str(error).splitlines()[0]}"
            return {column: Step(lost={reason}) for column in node["columns"]}
        return {column: self._leaves(node, column, root) for column, root in graph.items()}

    def _leaves(self, node: Mapping[str, Any], column: str, root: Node) -> Step:
        step = Step()
        place = f"{node['alias']}.{column}"
        for leaf in root.walk():
            if leaf.downstream:
                continue
            if isinstance(leaf.expression, exp.Placeholder):
                step.lost.add(f"{place} reads {leaf.name}, which no table of the query gives")
                continue
            if not isinstance(leaf.expression, exp.Table):
                # What has no source of its own is a constant or a count, unless it names a column all the same.
                step.lost |= {f"{place} reads {lost.sql()}" for lost in leaf.expression.find_all(exp.Column)}
                continue
            key = self._by_relation.get((leaf.expression.db, leaf.expression.name))
            name = exp.to_column(leaf.name).name
            if key is not None and name in self._columns(key):
                step.places.add((key, name))
            else:
                what = leaf.expression.sql(dialect="duckdb").partition("(")[0].lower()
                step.lost.add(f"{place} reads {leaf.name} of {what}")
        return step

    def _columns(self, key: str) -> list[str]:
        node = self._nodes[key]
        if node["resource_type"] == "model":
            return list(self._parents(key))
        declared = list(node["columns"])
        meta = node.get("meta") or {}
        return [*declared, *(column.name for column in ENVELOPE)] if meta.get("envelope") else declared


@dataclass(frozen=True)
class Row:
    """One column of a mart with its origin."""

    mart: str
    column: str
    staging: str
    sources: str


def read_rows(manifest: Mapping[str, Any]) -> list[Row]:
    """Return each column of each mart, of the marts in order of their names."""
    found = ColumnLineage(manifest)
    rows = []
    for key, node in sorted(_models(manifest), key=lambda item: str(item[1]["alias"])):
        if _is_mart(node):
            for column in node["columns"]:
                origin = found.origin(key, column)
                sources = _by_table(origin.sources)
                if origin.lost:
                    lost = [f"not followed: {why}" for why in sorted(origin.lost)]
                    sources = "; ".join([*([sources] if sources else []), *lost])
                rows.append(Row(node["alias"], column, _by_table(origin.staging), sources or NO_COLUMN))
    return rows


def is_compiled(manifest: Mapping[str, Any]) -> bool:
    """Whether the manifest holds the SQL of models, as ``dbt docs generate`` writes it and ``dbt parse`` does not."""
    return all(node.get("compiled_code") for _, node in _models(manifest))


def fingerprint(manifest: Mapping[str, Any]) -> str:
    """Return a digest of all that the lineage is made from: what the SQL of models comes from, and this module."""
    parts = [hashlib.sha256(Path(__file__).read_bytes()).hexdigest()]
    parts += [f"{key} {node['checksum']['checksum']}" for key, node in _models(manifest)]
    parts += [
        f"{key} {hashlib.sha256(macro['macro_sql'].encode()).hexdigest()}"
        for key, macro in manifest["macros"].items()
        if key.startswith("macro.payments.")
    ]
    parts += [f"{key} {' '.join(source['columns'])}" for key, source in manifest["sources"].items()]
    parts += [f"{key} {' '.join(node['columns'])}" for key, node in _models(manifest) if _is_mart(node)]
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def made_from(page: Path) -> str | None:
    """Return the digest of what a page was made from, or None where there is no page."""
    found = re.search(re.escape(MARK) + r"(\w+)\)", page.read_text(encoding="utf-8")) if page.is_file() else None
    return found[1] if found else None


def describe_lineage(rows: Sequence[Row], digest: str) -> str:
    """Return the page of the lineage as Markdown; ``digest`` is that of what it was made from."""
    lines = ["# Column lineage", "", INTRODUCTION]
    mart = ""
    for row in rows:
        if row.mart != mart:
            mart = row.mart
            lines += ["", f"## {mart}", "", "| column | staging | sources |", "|---|---|---|"]
        lines.append(f"| `{row.column}` | {row.staging} | {row.sources} |")
    return "\n".join([*lines, "", f"{MARK}{digest})", ""])


def lineage_site(page: str) -> str:
    """Return the page of the lineage as HTML, for the docs site, which shows no Markdown of its own folders."""
    style = (
        "body{font:14px sans-serif;margin:2em}td,th{border-top:1px solid #ccd;padding:2px 12px 2px 0;text-align:left}"
    )
    parts = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Column lineage</title><style>{style}</style>"]
    for line in escape(page, quote=False).splitlines():
        if line.startswith("|---"):
            continue
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.split("|")[1:-1]]
            parts.append("<tr><td>" + "<td>".join(cells).replace("`", ""))
        elif line.startswith("## "):
            parts.append(f"</table><h2 id={line[3:]}>{line[3:]}</h2><table>")
        elif line.startswith("# "):
            parts.append(f"<h1>{line[2:]}</h1>")
        elif line and not line.startswith(MARK):
            parts.append(f"<p>{line}</p><table>")
    return "\n".join([*parts, "</table></html>", ""])


def _models(manifest: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    return ((key, node) for key, node in manifest["nodes"].items() if node["resource_type"] == "model")


def _is_mart(node: Mapping[str, Any]) -> bool:
    return bool(node["path"].startswith("marts/"))


def _by_table(places: set[tuple[str, str]]) -> str:
    tables: dict[str, list[str]] = {}
    for table, column in sorted(places):
        tables.setdefault(table, []).append(column)
    return "; ".join(f"{table}: {', '.join(columns)}" for table, columns in tables.items())
