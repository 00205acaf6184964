"""The pictures of the README, taken with a headless browser from the running product: ``make pictures``."""

import sys
from pathlib import Path

from payments.diagrams.browser import take_picture
from payments.diagrams.outputs import FOLDER, generate
from payments.diagrams.serving import serve_dagster, serve_folder
from payments.errors import UsageError
from payments.settings import PROJECT_ROOT

PICTURES = PROJECT_ROOT / "docs" / "pictures"
EXPANDED_GROUPS = ("operations", "compliance", "features", "fraud", "docs")  # the others hold many assets each
ASSET_GRAPH = "/asset-groups?expanded=" + ",".join(f"global@global:{group}" for group in EXPANDED_GROUPS)
DOCS_OVERVIEW = "/index.html#!/overview"


def take_pictures(folder: Path = PICTURES) -> list[Path]:
    """Write pictures of the asset graph, the docs site and the operational store's diagram; return their paths.

    Raises:
        UsageError: no browser is installed, the docs site was not made yet, or the operational store is not up.
    """
    generate()
    folder.mkdir(parents=True, exist_ok=True)
    asset_graph, docs_site, erd = (folder / f"{name}.png" for name in ("asset_graph", "docs_site", "oltp_erd"))
    with serve_folder(PROJECT_ROOT / "target") as address:
        take_picture(address + DOCS_OVERVIEW, docs_site, width=1500, height=1000)
    take_picture((FOLDER / "oltp_erd.svg").as_uri(), erd, width=930, height=834)
    with serve_dagster() as address:
        take_picture(address + ASSET_GRAPH, asset_graph, width=2200, height=1000)
    return [asset_graph, docs_site, erd]


def main() -> None:
    """Print where the pictures are, or in one line why they could not be taken."""
    try:
        for path in take_pictures():
            print(f"{path.relative_to(PROJECT_ROOT)}: {path.stat().st_size // 1024} KB")
    except UsageError as error:
        print(f"pictures: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
