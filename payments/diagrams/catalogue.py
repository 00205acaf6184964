"""Tables and keys of the operational store, read from the live PostgreSQL catalogue."""

from collections import defaultdict
from collections.abc import Sequence

import psycopg

from payments.diagrams.model import Column, Entity, Reference

SCHEMAS = ("core", "ledger", "identity", "vault", "ops", "rules", "simulation")

_COLUMNS = """
    select
        namespace.nspname,
        class.relname,
        coalesce(obj_description(class.oid, 'pg_class'), ''),
        attribute.attname,
        format_type(attribute.atttypid, attribute.atttypmod),
        not attribute.attnotnull
    from pg_class as class
    inner join pg_namespace as namespace on class.relnamespace = namespace.oid
    inner join pg_attribute as attribute on class.oid = attribute.attrelid
    where
        namespace.nspname = any(%(schemas)s)
        and class.relkind in ('r', 'p')
        and not class.relispartition
        and attribute.attnum > 0
        and not attribute.attisdropped
    order by namespace.nspname, class.relname, attribute.attnum
"""

# confkey and conkey hold attribute numbers; the ordinality pairs a referencing column with the one it references.
_KEYS = """
    select
        namespace.nspname,
        class.relname,
        constraints.contype::text,
        array_agg(attribute.attname::text order by key.position),
        target_namespace.nspname,
        target.relname,
        array_agg(target_attribute.attname::text order by key.position)
    from pg_constraint as constraints
    inner join pg_class as class on constraints.conrelid = class.oid
    inner join pg_namespace as namespace on class.relnamespace = namespace.oid
    cross join lateral unnest(constraints.conkey) with ordinality as key (attnum, position)
    inner join pg_attribute as attribute on class.oid = attribute.attrelid and key.attnum = attribute.attnum
    left join pg_class as target on constraints.confrelid = target.oid
    left join pg_namespace as target_namespace on target.relnamespace = target_namespace.oid
    left join pg_attribute as target_attribute
        on target.oid = target_attribute.attrelid and constraints.confkey[key.position] = target_attribute.attnum
    where
        namespace.nspname = any(%(schemas)s)
        and constraints.contype in ('p', 'f')
        and not class.relispartition
        -- A key to a partitioned table has a twin for each of its partitions.
        and constraints.conparentid = 0
    group by
        constraints.oid, namespace.nspname, class.relname, constraints.contype, constraints.conname,
        target_namespace.nspname, target.relname
    order by namespace.nspname, class.relname, constraints.conname
"""

_SHORT_TYPES = {
    "timestamp with time zone": "timestamptz",
    "timestamp without time zone": "timestamp",
    "character": "char",
    "character varying": "varchar",
    "double precision": "double",
}


def read_catalogue(connection: psycopg.Connection, schemas: Sequence[str] = SCHEMAS) -> list[Entity]:
    """Return every table of ``schemas`` with its columns, primary key and foreign keys.

    Entities are named ``schema.table`` and ordered by the position of their schema in ``schemas``, then by name.
    """
    parameters = {"schemas": list(schemas)}
    comments: dict[tuple[str, str], str] = {}
    columns: defaultdict[tuple[str, str], list[Column]] = defaultdict(list)
    for schema, table, comment, column, data_type, is_nullable in connection.execute(_COLUMNS, parameters):
        comments[schema, table] = comment
        columns[schema, table].append(Column(column, shorten_type(data_type), is_nullable))

    primary_keys: dict[tuple[str, str], tuple[str, ...]] = {}
    references: defaultdict[tuple[str, str], list[Reference]] = defaultdict(list)
    for schema, table, kind, own, target_schema, target, theirs in connection.execute(_KEYS, parameters):
        if kind == "p":
            primary_keys[schema, table] = tuple(own)
        else:
            references[schema, table].append(Reference(tuple(own), f"{target_schema}.{target}", tuple(theirs)))

    return [
        Entity(
            group=schema,
            name=f"{schema}.{table}",
            columns=tuple(columns[schema, table]),
            primary_key=primary_keys.get((schema, table), ()),
            references=tuple(references[schema, table]),
            comment=comments[schema, table],
        )
        for schema, table in sorted(columns, key=lambda name: (list(schemas).index(name[0]), name[1]))
    ]


def shorten_type(data_type: str) -> str:
    """Return the usual short name of an SQL type: ``character(3)`` -> ``char(3)``."""
    base, bracket, rest = data_type.partition("(")
    return _SHORT_TYPES.get(base.strip().lower(), base.strip().lower()) + (bracket + rest).replace(" ", "")
