"""Trying what a login may do: each attempt runs on the server, in a subtransaction that is rolled back."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import psycopg
from psycopg import errors

from tests.systems.two_merchants import OURS, THEIRS

Whose = Literal["own", "other"]
MERCHANTS: Mapping[Whose, str] = {"own": OURS, "other": THEIRS}
TABLE_VERBS = ("select", "insert", "update", "delete", "truncate", "copy to", "copy from")
SEQUENCE_VERBS = ("select", "usage", "update")
# Refused: no privilege or a policy; not possible with this kind of relation; COPY FROM under row-level security.
_REFUSALS = ("42501", "55000", "42809", "0A000")
# Of arguments that a strict function needs, so that it is called at all.
_SAMPLES = {"bigint": "1", "integer": "1", "timestamp with time zone": "now()"}


@dataclass(frozen=True)
class Relation:
    """What can be asked about a relation: ``rows`` is a sample of it (or of what it is a part of) by owner."""

    name: str
    kind: Literal["table", "partition", "view", "sequence"]
    columns: tuple[str, ...]
    rows: Mapping[Whose, str]

    @property
    def of_tenants(self) -> bool:
        """Whether rows of it belong to one merchant or the other."""
        return bool(self.rows) and self.kind != "partition"

    def belongs_to(self, whose: Whose) -> str:
        """Return the condition that picks the rows of one merchant."""
        if self.name == "vault.subjects":
            return f"subject_id = md5('{MERCHANTS[whose]}')::uuid"
        return f"merchant_id = '{MERCHANTS[whose]}'" if "merchant_id" in self.columns else "true"


class Cell(NamedTuple):
    """One cell of the matrix, less the role; functions have no owner of rows."""

    object: str
    verb: str
    whose: Whose


@dataclass(frozen=True)
class Attempt:
    """A statement for a cell; ``needs_rows`` when an answer without rows is a refusal."""

    cell: Cell
    statement: str
    needs_rows: bool = False


def relations(connection: psycopg.Connection) -> list[Relation]:
    """Return every relation of the operational schemas, as the catalogue has them."""
    found = connection.execute(
        """
        select
            format('%I.%I', n.nspname, c.relname),
            case
                when c.relkind = 'S' then 'sequence'
                when c.relkind = 'v' then 'view'
                when c.relispartition then 'partition'
                else 'table'
            end,
            array(
                select a.attname::text from pg_attribute as a
                where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attidentity = ''
                order by a.attnum
            ),
            case when c.relispartition then pg_partition_root(c.oid)::regclass::text end
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname not like 'pg\\_%'
            and n.nspname <> 'information_schema'
            and c.relkind in ('r', 'p', 'v', 'm', 'S')
        order by 1
        """
    ).fetchall()
    return [
        Relation(
            name,
            kind,
            tuple(columns),
            {}
            if kind == "sequence"
            else dict(_samples(connection, Relation(root or name, "table", tuple(columns), {}))),
        )
        for name, kind, columns, root in found
    ]


def _samples(connection: psycopg.Connection, root: Relation) -> Iterator[tuple[Whose, str]]:
    if "merchant_id" not in root.columns and root.name != "vault.subjects":
        return
    for whose in MERCHANTS:
        query = f"select to_jsonb(t)::text from {root.name} as t where {root.belongs_to(whose)} limit 1"
        row = connection.execute(query.encode()).fetchone()
        if row is not None:
            yield whose, row[0]


def attempts_on(relation: Relation) -> list[Attempt]:
    """Return an attempt for each verb and owner, COPY apart."""
    if relation.kind == "sequence":
        calls = {
            "select": f"select last_value from {relation.name}",
            "usage": f"select nextval('{relation.name}')",
            "update": f"select setval('{relation.name}', 1)",
        }
        return [Attempt(Cell(relation.name, verb, "own"), calls[verb]) for verb in SEQUENCE_VERBS]
    return [
        Attempt(
            Cell(relation.name, verb, whose), statement, relation.of_tenants and verb in {"select", "update", "delete"}
        )
        for whose in MERCHANTS
        for verb, statement in _statements(relation, whose).items()
    ]


def _statements(relation: Relation, whose: Whose) -> dict[str, str]:
    name, condition = relation.name, relation.belongs_to(whose)
    first, columns = relation.columns[0], ", ".join(relation.columns)
    sample = relation.rows.get(whose)
    return {
        "select": f"select from {name} where {condition}",
        "insert": f"insert into {name} default values"
        if sample is None
        else f"insert into {name} ({columns}) select {columns} "
        f"from jsonb_populate_record(null::{name}, $sample${sample}$sample$)",
        "update": f"update {name} set {first} = {first} where {condition}",
        "delete": f"delete from {name} where {condition}",
        "truncate": f"truncate {name}",
    }


def calls(connection: psycopg.Connection) -> list[Attempt]:
    """Return a call of every function and procedure of the operational schemas."""
    found = connection.execute(
        """
        select
            p.oid::regprocedure::text,
            format('%I.%I', n.nspname, p.proname),
            p.prokind = 'p',
            p.proisstrict,
            array(
                select format_type(t.type, null) from unnest(p.proargtypes) with ordinality as t (type, n) order by t.n
            )
        from pg_proc as p
        inner join pg_namespace as n on p.pronamespace = n.oid
        where n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
        order by 1
        """
    ).fetchall()
    return [
        Attempt(
            Cell(signature, "execute", "own"),
            f"{'call' if is_procedure else 'select'} {name}"
            f"({', '.join(_SAMPLES[kind] if is_strict else f'null::{kind}' for kind in kinds)})",
        )
        for signature, name, is_procedure, is_strict, kinds in found
    ]


# The subtransaction of each attempt is rolled back by the exception that reports its number of rows.
_TRY_ALL = """
do $do$
declare
    v_attempt jsonb;
    v_outcomes jsonb := '[]';
    v_rows bigint;
begin
    for v_attempt in select a.value from jsonb_array_elements(current_setting('trial.attempts')::jsonb) as a
    loop
        begin
            execute v_attempt #>> '{}';
            get diagnostics v_rows = row_count;
            raise exception using errcode = 'TRIED', message = v_rows::text;
        exception when others then
            v_outcomes := v_outcomes || jsonb_build_array(jsonb_build_array(sqlstate, sqlerrm));
        end;
    end loop;
    perform set_config('trial.outcomes', v_outcomes::text, false);
end
$do$
"""


def allowed(login: psycopg.Connection, attempts: Iterable[Attempt]) -> dict[Cell, bool | str]:
    """Try each as this login: whether it may, or the error that is neither a refusal nor a broken constraint."""
    tried = list(attempts)
    login.execute("select set_config('trial.attempts', %s, false)", (json.dumps([a.statement for a in tried]),))
    login.execute(_TRY_ALL)
    row = login.execute("select current_setting('trial.outcomes')").fetchone()
    assert row is not None
    outcomes = json.loads(row[0])
    assert len(outcomes) == len(tried)
    return {a.cell: _verdict(a, *outcome) for a, outcome in zip(tried, outcomes, strict=True)}


def _verdict(attempt: Attempt, sqlstate: str, message: str) -> bool | str:
    if attempt.cell.verb == "execute":
        # Inside, a function that may be called can refuse what it is called with.
        return not message.startswith(
            ("permission denied for function", "permission denied for procedure", "permission denied for schema")
        )
    if sqlstate == "TRIED":
        return not attempt.needs_rows or int(message) > 0
    if "is append-only" in message:
        return True  # a guard of the table stopped what the privileges let through
    if sqlstate in _REFUSALS:
        return False
    # A row that breaks a constraint was let as far as the table.
    return True if sqlstate.startswith("23") else f"{sqlstate} {message}"


def copies(login: psycopg.Connection, relation: Relation) -> dict[Cell, bool | str]:
    """Try COPY out of and into a relation as this login (autocommit)."""
    found: dict[Cell, bool | str] = {}
    for whose in MERCHANTS:
        query = f"copy (select 'row' from {relation.name} where {relation.belongs_to(whose)} limit 1) to stdout"
        statements = {"copy to": query, "copy from": f"copy {relation.name} from stdin"}
        for verb, statement in statements.items():
            try:
                with login.cursor() as cursor, cursor.copy(statement.encode()) as copy:
                    got = bool(list(copy)) if verb == "copy to" else True  # read to its end
                found[Cell(relation.name, verb, whose)] = got or not relation.of_tenants
            except (errors.InsufficientPrivilege, errors.FeatureNotSupported, errors.WrongObjectType):
                found[Cell(relation.name, verb, whose)] = False
    return found
