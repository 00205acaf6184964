"""Builds the dbt docs site with its diagrams: ``make docs``."""

import sys
from pathlib import Path

from orchestration.dbt_project import load_project, run_dbt
from payments.diagrams import generate, generate_lineage
from payments.diagrams.column_lineage import lineage_site
from payments.diagrams.outputs import FOLDER, LINEAGE
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT


def build_docs_site() -> Path:
    """Draw the diagrams, generate the site with the lineage of columns, and return its index page.

    Raises UsageError when dbt cannot read the warehouse or PostgreSQL does not answer.
    """
    load_project()
    generate()
    # To compile the tests of single columns as well, which the site does not show, takes three times as long.
    run_dbt("docs", "generate", "--exclude", "test_type:generic", "test_type:unit")
    target = PROJECT_ROOT / "target"
    generate_lineage()  # dbt has compiled the models now
    page = (FOLDER / LINEAGE).read_text(encoding="utf-8")
    (target / "docs" / "generated" / "column_lineage.html").write_text(lineage_site(page), encoding="utf-8")
    return target / "index.html"


def main() -> None:
    """Print where the site is, or in one line why it could not be made."""
    try:
        print(f"The docs site: {build_docs_site()} (dbt docs serve shows it on http://127.0.0.1:8080)")
    except UsageError as error:
        print(f"docs: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
