"""Follows a plan in a warehouse and in the raw zone: rows, what they add up to, raw rows, files and batches.

Both warehouses are read through DuckDB, as for digests. The rows of each step stand in a temporary table.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import duckdb

from ingestion.raw_zone import BATCHES, Pin, RawZone, batch_table, parquet, sequences_of
from payments.digest import MANIFEST, Target, literal, quoted, warehouse_of
from payments.errors import UsageError
from payments.settings import settings
from payments.trace.plan import Link, Plan, declared, plan_of

Row = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A figure of the rows of a model, added up, beside what the rows add up to that it is made of, row by row."""

    model: str
    name: str
    upstream: str
    measure: str
    told: Any
    found: Any
    differing: int

    @property
    def holds(self) -> bool:
        """Whether the figure of every row is what its rows add up to."""
        return self.differing == 0


@dataclass(frozen=True)
class Step:
    """The rows of a model or seed that rows of the models ``of`` are made of: all of them counted, some shown."""

    name: str
    of: tuple[str, ...]
    is_seed: bool
    count: int
    rows: list[Row]
    figures: list[Figure]


@dataclass(frozen=True)
class RawStep:
    """The landed rows behind the rows of a model; ``expected`` is the number of versions that these name."""

    relation: str
    model: str
    expected: int
    count: int
    rows: list[Row]

    @property
    def holds(self) -> bool:
        """Whether every version has one row."""
        return self.expected == self.count


@dataclass(frozen=True)
class Batch:
    """The commit record of a batch that is behind a trace, of one entity; the counts are those of all of the batch."""

    batch_id: str
    entity: str
    source: str
    kind: str
    origin: str
    source_at: datetime
    landed_at: datetime
    code_version: str
    read: int
    accepted: int
    unchanged: int
    quarantined: int
    deleted: int
    rows: int
    files: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """What was found of a model's rows; ``missing`` are batches that no commit record names."""

    steps: list[Step]
    raw: list[RawStep]
    batches: list[Batch]
    missing: list[str]

    @property
    def holds(self) -> bool:
        """Whether every figure adds up, every version has one raw row, and every raw row a commit record."""
        return (
            not self.missing
            and all(figure.holds for step in self.steps for figure in step.figures)
            and all(step.holds for step in self.raw)
        )


@dataclass(frozen=True)
class Relations:
    """Where models and seeds are in a warehouse, as the manifest has them."""

    places: dict[str, tuple[str, str]]
    seeds: frozenset[str]

    @classmethod
    def read(cls, manifest: Path = MANIFEST) -> "Relations":
        """Read them. Raises UsageError when there is no manifest."""
        if not manifest.is_file():
            raise UsageError(f"There is no {manifest}: run dbt build first.")
        nodes: dict[str, Row] = json.loads(manifest.read_text(encoding="utf-8"))["nodes"]
        found = [node for node in nodes.values() if node["resource_type"] in ("model", "seed")]
        return cls(
            {node["alias"]: (node["schema"], node["alias"]) for node in found},
            frozenset(node["alias"] for node in found if node["resource_type"] == "seed"),
        )


def trace(
    model: str, given: dict[str, str], limit: int = 5, engine: Target = "duckdb", manifest: Path = MANIFEST
) -> Trace:
    """Return what the rows of a model are made of in which columns have the given values; an empty one is null.

    Raises UsageError when there is no such model, column, value or row, or no warehouse.
    """
    with tracer(engine, manifest) as found:
        return found.trace(model, given, limit)


@contextmanager
def tracer(engine: Target, manifest: Path = MANIFEST) -> Iterator["Tracer"]:
    """Yield what traces in one warehouse as it is now."""
    relations = Relations.read(manifest)
    with warehouse_of(engine) as (con, catalog):
        yield Tracer(con, catalog, relations, RawZone(settings().raw_zone).pin())


class Tracer:
    """Traces in one warehouse over one state of the raw zone."""

    def __init__(self, con: duckdb.DuckDBPyConnection, catalog: str, relations: Relations, pin: Pin) -> None:
        self.con = con
        self.catalog = catalog
        self.relations = relations
        self.pin = pin
        self._counts: dict[str, int] = {}
        batches = f"{quoted(catalog)}.raw_platform.batches"
        con.execute(f"create or replace temp macro as_of_on() as (select max(source_at)::date from {batches})")
        con.execute("create or replace temp macro key_of(id) as md5(coalesce(length(id) || ':' || id, '-'))")

    def trace(self, model: str, given: dict[str, str], limit: int = 5) -> Trace:
        """Trace the rows of a model in which columns have the given values."""
        self._check(model, given)
        tests = [
            f"{quoted(name)} = {literal(value)}" if value else f"{quoted(name)} is null"
            for name, value in given.items()
        ]
        found = self.follow(model, " and ".join(tests) or "true", limit)
        if not found.steps[0].count:
            raise UsageError(f"No row of {model} has {', '.join(f'{n}={v}' for n, v in given.items())}.")
        return found

    def follow(self, model: str, condition: str, limit: int = 5) -> Trace:
        """Trace the rows of a model for which a condition (DuckDB) holds."""
        plan = plan_of(model, declared(), self.relations.seeds)
        self._counts = {}
        self._keep(model, f"select * from {self.place(model)} where {condition}")
        steps = [self._step(plan, name, limit) for name in plan.models]
        raw = [self._raw_step(name, relation, limit) for name, relation in plan.raw.items() if self._counts[name]]
        return Trace(steps, raw, *self._batches(plan))

    def _check(self, model: str, given: dict[str, str]) -> None:
        """Raise UsageError when there is no such model, or it has no such column or value."""
        models = sorted(set(self.relations.places) - self.relations.seeds)
        if model not in models:
            raise UsageError(f"There is no model {model}{_meant(model, models)}")
        types = self._types(model)
        for name, value in given.items():
            if name not in types:
                raise UsageError(f"{model} has no column {name}{_meant(name, list(types))}")
            if value and self._one(f"select try_cast({literal(value)} as {types[name]}) is null"):
                raise UsageError(f"{name} of {model} is a {types[name].lower()}, which {value!r} is not.")

    def _step(self, plan: Plan, name: str, limit: int) -> Step:
        """Find the rows of a model that the rows above it are made of, and show them."""
        links = [link for link in plan.links_to(name) if self._counts[link.model]]
        if links:
            place = self.place(name)
            found = [
                f"exists (select 1 from {_step(link.model)} as this where {link.origin.condition(place)})"
                for link in links
            ]
            self._keep(name, f"select up.* from {place} as up where {' or '.join(found)}")
        count = self._counts.setdefault(name, 0)
        rows = self._rows(f"select * exclude (_row) from {_step(name)} order by all limit {limit}") if count else []
        figures = [figure for link in links for figure in self._figures(link)]
        of = tuple(link.model for link in links)
        return Step(name, of, name in self.relations.seeds, count, rows, figures)

    def _figures(self, link: Link) -> list[Figure]:
        """Compare figures of the rows of a model with what the rows add up to that were found for each."""
        measures = link.origin.figures
        if not measures:
            return []
        told = ", ".join(f"coalesce({figure}, 0) as told_{i}" for i, figure in enumerate(measures))
        found = ", ".join(f"{measure} as found_{i}" for i, measure in enumerate(measures.values()))
        sides = ", ".join(
            f"sum(told_{i}), coalesce(sum(found_{i}), 0), count(*) filter (told_{i} <> coalesce(found_{i}, 0))"
            for i in range(len(measures))
        )
        answer = self.con.execute(
            f"""
            with
            pairs as (
                select this._row as _of, up.* exclude (_row)
                from {_step(link.model)} as this
                inner join {_step(link.upstream)} as up on {link.origin.condition(self.place(link.upstream))}
            ),
            added_up as (select _of, {found} from pairs group by _of),
            told as (select _row as _of, {told} from {_step(link.model)})
            select {sides} from told left join added_up using (_of)
            """
        ).fetchall()[0]
        return [
            Figure(link.model, figure, link.upstream, measure, *answer[3 * i : 3 * i + 3])
            for i, (figure, measure) in enumerate(measures.items())
        ]

    def _raw_step(self, model: str, relation: str, limit: int) -> RawStep:
        """Find the landed rows behind the rows of a model: each names one by its sequence and position."""
        source, entity = relation.split(".")
        versions = f"(select distinct _sequence, _position from {_step(model)})"
        files = self._files(source, entity, model)
        landed = f"from {parquet(files)}" if files else "from (select 0 as _sequence, '' as _position, '' as _batch_id)"
        self.con.execute(
            f"""
            create or replace temp table {_raw(model)} as
            select landed.*
            from (select *, {"filename" if files else "null"} as _file {landed}) as landed
            semi join {versions} as versions using (_sequence, _position)
            """
        )
        expected, count = (self._one(f"select count(*) from {rows}") for rows in (versions, _raw(model)))
        rows = self._rows(f"select * exclude (_file) from {_raw(model)} order by all limit {limit}")
        return RawStep(relation, model, expected, count, rows)

    def _files(self, source: str, entity: str, model: str) -> list[Path]:
        """Return the files of an entity that may hold the versions of a step, by the sequences in their names."""
        sequences = [row[0] for row in self.con.execute(f"select distinct _sequence from {_step(model)}").fetchall()]
        named = [(path, *sequences_of(path.name)) for path in self.pin.files(source, entity)]
        return [path for path, high, low in named if any(low <= sequence <= high for sequence in sequences)]

    def _batches(self, plan: Plan) -> tuple[list[Batch], list[str]]:
        """Return the commit records of the batches of all raw rows, and the ids of batches that have none.

        A raw row that two models are built from, as staging and history are, counts once.
        """
        named = [
            f"select _batch_id as batch_id, '{relation.split('.')[1]}' as entity, _file, _position from {_raw(model)}"
            for model, relation in plan.raw.items()
            if self._counts[model]
        ]
        named += [
            f"select batch_id, entity, null as _file, _row::varchar as _position from {_step(model)}"
            for model in ("stg_platform__batches", "stg_platform__quarantine")
            if self._counts.get(model)
        ]
        if not named:
            return [], []
        self.con.register("recent", batch_table(self.pin.commits))
        merged = [self.pin.root / file.name for file in self.pin.checkpoint.files.get(BATCHES, [])]
        older = f"union all by name select * from {parquet(merged)}" if merged else ""
        found = self._rows(
            f"""
            with
            named as ({" union ".join(named)}),
            behind as (
                select
                    batch_id,
                    entity,
                    count(*) as rows,
                    list(distinct _file order by _file) filter (_file is not null) as files
                from named
                group by batch_id, entity
            ),
            committed as (select * from recent {older})
            select behind.batch_id, behind.entity, behind.rows, behind.files, committed.* exclude (batch_id, entity)
            from behind
            left join committed on behind.batch_id = committed.batch_id and behind.entity = committed.entity
            order by committed.sequence, behind.entity
            """
        )
        self.con.unregister("recent")
        return (
            [self._batch(row) for row in found if row["sequence"] is not None],
            [f"{row['batch_id']} ({row['entity']})" for row in found if row["sequence"] is None],
        )

    def _batch(self, row: Row) -> Batch:
        return Batch(
            row["batch_id"],
            row["entity"],
            row["source"],
            row["kind"],
            row["origin"],
            row["source_at"].astimezone(UTC),
            row["landed_at"].astimezone(UTC),
            row["code_version"],
            row["read_count"],
            row["accepted_count"],
            row["unchanged_count"],
            row["quarantined_count"],
            row["deleted_count"],
            row["rows"],
            tuple(str(Path(file).relative_to(self.pin.root)) for file in row["files"] or ()),
        )

    def _keep(self, name: str, query: str) -> None:
        step = f"create or replace temp table {_step(name)}"
        try:
            self.con.execute(f"{step} as select row_number() over () as _row, * from ({query})")
            self._counts[name] = self._one(f"select count(*) from {_step(name)}")
        except duckdb.CatalogException:
            raise UsageError(f"The warehouse has no {name}: run dbt build first.") from None

    def place(self, model: str) -> str:
        """Return the relation of a model or seed, as the connection names it."""
        schema, table = self.relations.places[model]
        return f"{quoted(self.catalog)}.{quoted(schema)}.{quoted(table)}"

    def _types(self, model: str) -> dict[str, str]:
        try:
            return {row[0]: row[1] for row in self.con.execute(f"describe {self.place(model)}").fetchall()}
        except duckdb.CatalogException:
            raise UsageError(f"The warehouse has no {model}: run dbt build first.") from None

    def _rows(self, query: str) -> list[Row]:
        answer = self.con.execute(query)
        names = [column[0] for column in answer.description or []]
        return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]

    def _one(self, query: str) -> Any:
        return self.con.execute(query).fetchall()[0][0]


def _meant(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f": did you mean {near[0]}?" if near else "."


def _step(model: str) -> str:
    return quoted(f"step {model}")


def _raw(model: str) -> str:
    return quoted(f"raw {model}")
