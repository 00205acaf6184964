"""What the browser tests look at: a browser, the docs site, the Dagster UI."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from payments.diagrams.browser import NAMES, find_browser
from payments.diagrams.serving import serve_dagster, serve_folder
from tests.dbt_command import run_dbt


@pytest.fixture(scope="session", autouse=True)
def _browser() -> None:
    if find_browser() is None:
        pytest.skip(f"no browser found: none of {', '.join(NAMES)} is installed")


@pytest.fixture(scope="session")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The docs site of the project as it stands, made into a folder of its own from an empty warehouse."""
    target = tmp_path_factory.mktemp("site")
    run_dbt(target, "docs", "generate")
    return target


@pytest.fixture(scope="session")
def site(site_folder: Path) -> Iterator[str]:
    with serve_folder(site_folder) as address:
        yield address


@pytest.fixture(scope="session")
def dagster_ui() -> Iterator[str]:
    with serve_dagster() as address:
        yield address
