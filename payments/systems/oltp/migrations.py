"""Numbered SQL files, each applied once in a transaction of its own, and the reference data from the dbt seeds."""

import csv
import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from psycopg import Connection, sql

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT
from payments.systems.oltp.connection import connect

MIGRATIONS = Path(__file__).parent / "migrations"
SEEDS = PROJECT_ROOT / "seeds"
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
# Any number will do, as long as every runner asks for the same one.
_ADVISORY_LOCK = 5_432_001


@dataclass(frozen=True)
class Migration:
    """One numbered file."""

    version: str
    name: str
    script: str

    @property
    def sha256(self) -> str:
        """The digest by which an edited file is recognized."""
        return hashlib.sha256(self.script.encode()).hexdigest()


@dataclass(frozen=True)
class ReferenceTable:
    """A table whose rows are a dbt seed; columns of the seed that the table does not have are left out."""

    name: str
    columns: tuple[str, ...]

    @property
    def key(self) -> str:
        """The key column, which comes first."""
        return self.columns[0]


REFERENCE_TABLES = (
    ReferenceTable("currencies", ("currency", "currency_name", "exponent")),
    ReferenceTable("countries", ("country", "country_name", "region", "currency")),
    ReferenceTable("merchant_categories", ("mcc", "category_name")),
)


def migrate(folder: Path = MIGRATIONS, seeds: Path = SEEDS) -> list[str]:
    """Apply what was not applied yet and bring the reference data in line with the seeds.

    Returns:
        What changed, one line each; empty when everything was in place.

    Raises:
        UsageError: an applied file was edited or is gone, a file is misnamed or misnumbered, or a seed cannot be used.
    """
    migrations = read_migrations(folder)
    with connect(autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", (_ADVISORY_LOCK,))
        pending = _pending(connection, migrations)
        for migration in pending:
            with connection.transaction():
                connection.execute(migration.script.encode())
                connection.execute(
                    "insert into public.schema_migrations (version, name, sha256) values (%s, %s, %s)",
                    (migration.version, migration.name, migration.sha256),
                )
        with connection.transaction():
            changed = [line for table in REFERENCE_TABLES if (line := _upsert(connection, table, seeds)) is not None]
    return [migration.name for migration in pending] + changed


def read_migrations(folder: Path) -> list[Migration]:
    """Return the numbered files of a folder in order.

    Raises:
        UsageError: a name does not follow ``0001_what_it_does.sql``, or two files have one number.
    """
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise UsageError(f"The migration {path.name} is misnamed: call it like 0001_what_it_does.sql.")
        migrations.append(Migration(match.group(1), path.name, path.read_text(encoding="utf-8")))
    for earlier, later in pairwise(migrations):
        if earlier.version == later.version:
            raise UsageError(f"The migrations {earlier.name} and {later.name} have one number: renumber the newer one.")
    return migrations


def _pending(connection: Connection, migrations: list[Migration]) -> list[Migration]:
    connection.execute(
        """
        create table if not exists public.schema_migrations (
            version text primary key,
            name text not null,
            sha256 text not null,
            applied_at timestamptz not null default now()
        )
        """
    )
    applied = {
        version: (name, digest)
        for version, name, digest in connection.execute("select version, name, sha256 from public.schema_migrations")
    }
    known = {migration.version: migration for migration in migrations}
    for version, (name, digest) in sorted(applied.items()):
        if version not in known:
            raise UsageError(f"The migration {name} was applied but its file is gone: restore the file.")
        if known[version].sha256 != digest:
            raise UsageError(f"The migration {name} was edited after it was applied: undo that and add a new file.")
    pending = [migration for migration in migrations if migration.version not in applied]
    late = next((migration for migration in pending if applied and migration.version < max(applied)), None)
    if late is not None:
        raise UsageError(f"The migration {late.name} comes before one that was applied: give it the next free number.")
    return pending


def _upsert(connection: Connection, table: ReferenceTable, seeds: Path) -> str | None:
    """Bring one reference table in line with its seed, touching only rows that differ."""
    path = seeds / f"{table.name}.csv"
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [tuple(row[column] for column in table.columns) for row in csv.DictReader(file)]
    except FileNotFoundError:
        raise UsageError(f"The seed {path} is missing: restore it.") from None
    except KeyError as error:
        raise UsageError(f"The seed {path} has no column {error}: restore it.") from None
    columns = sql.SQL(", ").join(map(sql.Identifier, table.columns))
    rest = table.columns[1:]
    statement = sql.SQL(
        """
        insert into core.{table} as present ({columns})
        values ({values})
        on conflict ({key}) do update set {assignments}
        where ({present}) is distinct from ({new})
        """
    ).format(
        table=sql.Identifier(table.name),
        columns=columns,
        values=sql.SQL(", ").join(sql.Placeholder() * len(table.columns)),
        key=sql.Identifier(table.key),
        assignments=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(sql.Identifier(name)) for name in rest),
        present=sql.SQL(", ").join(sql.SQL("present.{}").format(sql.Identifier(name)) for name in rest),
        new=sql.SQL(", ").join(sql.SQL("excluded.{}").format(sql.Identifier(name)) for name in rest),
    )
    with connection.cursor() as cursor:
        cursor.executemany(statement, rows)
        changed = cursor.rowcount
    return f"{table.name}: {changed} rows" if changed else None
