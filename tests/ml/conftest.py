"""A warehouse with the synthetic feature table, found through the settings."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from payments.settings import settings
from tests.ml.features import write_warehouse


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The path of a warehouse with features, which the settings point to."""
    path = tmp_path / "warehouse.duckdb"
    write_warehouse(path)
    monkeypatch.setenv("PAYMENTS_WAREHOUSE", str(path))
    settings.cache_clear()
    yield path
    monkeypatch.undo()
    settings.cache_clear()
