"""What the browser tests look at: a browser, the docs site, the Dagster UI."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from payments.diagrams.browser import NAMES, find_browser
from payments.diagrams.serving import serve_dagster, serve_folder
from tests.dbt_project import DEFAULT_TARGET, Dbt


@pytest.fixture(scope="session", autouse=True)
def _browser() -> None:
    if find_browser() is None:
        pytest.skip(f"no browser found: none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="session")
def site_folder(dbt: Dbt, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The docs site of the project as it stands, made from an empty warehouse."""
    empty = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PAYMENTS_RAW", str(empty / "raw"))
        patch.setenv("PAYMENTS_WAREHOUSE", str(empty / "warehouse.duckdb"))
        dbt("docs", "generate")
    return dbt.folder / DEFAULT_TARGET


@pytest.fixture(scope="session")
def site(site_folder: Path) -> Iterator[str]:
    with serve_folder(site_folder) as address:
        yield address


@pytest.fixture(scope="session")
def dagster_ui() -> Iterator[str]:
    with serve_dagster() as address:
        yield address
