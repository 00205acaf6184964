"""Migrations are applied once, in order, unedited; reference data follows the seeds and is left alone when it does."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from payments.errors import UsageError
from payments.settings import settings
from payments.systems.oltp.check import check
from payments.systems.oltp.connection import connect, dsn
from payments.systems.oltp.invariants.payments import VERSIONED
from payments.systems.oltp.migrations import MIGRATIONS, SEEDS, migrate, read_migrations
from tests.conftest import Servers


@pytest.fixture
def empty_database(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[psycopg.Connection]:
    """A connection (autocommit) to a database without a schema, which the settings name as the operational store."""
    assert servers.home.exists()
    with connect(autocommit=True, dbname="postgres") as administration:
        administration.execute("create database scratch")
        monkeypatch.setenv("PAYMENTS_OLTP_DSN", dsn("scratch"))
        settings.cache_clear()
        with connect(autocommit=True) as connection:
            yield connection
        monkeypatch.undo()
        settings.cache_clear()
        administration.execute("drop database scratch with (force)")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the migrations that a test may edit."""
    return Path(shutil.copytree(MIGRATIONS, tmp_path / "migrations"))


def test_migrations_are_applied_once_and_recorded(empty_database: psycopg.Connection) -> None:
    names = [migration.name for migration in read_migrations(MIGRATIONS)]
    applied = migrate()
    assert applied[: len(names)] == names
    assert migrate() == []
    recorded = empty_database.execute("select name from public.schema_migrations order by version").fetchall()
    assert [name for (name,) in recorded] == names
    assert all(result.passed for result in check())


def test_parallel_runners_apply_each_migration_once(empty_database: psycopg.Connection) -> None:
    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(lambda _: migrate(), range(4)))
    assert sorted(map(len, outcomes))[:3] == [0, 0, 0]
    count = empty_database.execute("select count(*) from public.schema_migrations").fetchone()
    assert count == (len(read_migrations(MIGRATIONS)),)


def test_an_edited_migration_is_refused(empty_database: psycopg.Connection, folder: Path) -> None:
    migrate(folder)
    edited = next(folder.glob("0003_*.sql"))
    edited.write_text(edited.read_text() + "-- a remark\n")
    with pytest.raises(UsageError, match=f"{edited.name} was edited after it was applied"):
        migrate(folder)
    edited.unlink()
    with pytest.raises(UsageError, match="its file is gone"):
        migrate(folder)
    assert empty_database.info.dbname == "scratch"


def test_a_failing_migration_leaves_nothing_and_can_be_mended(empty_database: psycopg.Connection, folder: Path) -> None:
    new = folder / "9000_new.sql"
    new.write_text("create table public.half_made (n integer); select 1 / 0;")
    with pytest.raises(errors.DivisionByZero):
        migrate(folder)
    assert empty_database.execute("select to_regclass('public.half_made')").fetchone() == (None,)
    new.write_text("create table public.half_made (n integer);")
    assert migrate(folder)[0] == "9000_new.sql"
    (folder / "8999_late.sql").write_text("select 1;")
    with pytest.raises(UsageError, match="next free number"):
        migrate(folder)


@pytest.mark.parametrize("name", ["10_short.sql", "0001_Reference.sql", "0001_another_first.sql"])
def test_misnamed_migrations_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_text("select 1;")
    with pytest.raises(UsageError, match=r"misnamed|have one number"):
        read_migrations(folder)


def test_reference_data_follows_the_seeds(empty_database: psycopg.Connection, tmp_path: Path) -> None:
    migrate()
    seeds = Path(shutil.copytree(SEEDS, tmp_path / "seeds"))
    currencies = seeds / "currencies.csv"
    currencies.write_text(currencies.read_text().replace("\nEUR,Euro,", "\nEUR,Euro of today,"))
    assert migrate(seeds=seeds) == ["currencies: 1 rows"]
    query = "select currency_name, exponent from core.currencies where currency = 'EUR'"
    assert empty_database.execute(query).fetchone() == ("Euro of today", 2)
    assert migrate() == ["currencies: 1 rows"]
    currencies.write_text("currency,currency_name\nEUR,Euro\n")
    with pytest.raises(UsageError, match="has no column 'exponent'"):
        migrate(seeds=seeds)
    currencies.unlink()
    with pytest.raises(UsageError, match=r"currencies\.csv is missing"):
        migrate(seeds=seeds)


def test_declared_foreign_keys_are_those_that_stand(empty_database: psycopg.Connection) -> None:
    migrate()
    standing = empty_database.execute(
        """
        select format('%I.%I', n.nspname, r.relname), c.conname, pg_get_constraintdef(c.oid)
        from pg_constraint as c
        inner join pg_class as r on c.conrelid = r.oid
        inner join pg_namespace as n on r.relnamespace = n.oid
        where c.contype = 'f' and c.conparentid = 0 and n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops')
        order by 1, 2
        """
    ).fetchall()
    declared = empty_database.execute(
        "select table_name, constraint_name, definition from rules.foreign_keys order by 1, 2"
    ).fetchall()
    assert standing == declared
    assert len(standing) > 20


def test_declared_triggers_are_those_that_stand(empty_database: psycopg.Connection) -> None:
    migrate()
    standing = empty_database.execute(
        """
        select format('%I.%I', n.nspname, r.relname), t.tgname, t.tgtype
        from pg_trigger as t
        inner join pg_class as r on t.tgrelid = r.oid
        inner join pg_namespace as n on r.relnamespace = n.oid
        where not t.tgisinternal
            and not r.relispartition
            and n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops')
        order by 1, 2
        """
    ).fetchall()
    declared = empty_database.execute(
        "select table_name, trigger_name, trigger_type from rules.triggers order by 1, 2"
    ).fetchall()
    assert standing == declared
    versioned = empty_database.execute(
        "select table_name from rules.triggers where trigger_name = 'versioned' and table_name like 'core.%' order by 1"
    ).fetchall()
    assert [name for (name,) in versioned] == sorted(VERSIONED), "the checker knows every table with versions"


def test_a_store_without_a_schema_cannot_be_checked(empty_database: psycopg.Connection) -> None:
    with pytest.raises(UsageError, match="run payments up"):
        check()
    assert empty_database.info.dbname == "scratch"
