"""The Dagster asset graph as a browser shows it."""

import pytest

from payments.diagrams.browser import read_page


@pytest.mark.parametrize(
    ("group", "names"),
    [
        ("marts", ["dim_merchant", "fct_payments", "agg_revenue_daily"]),
        ("fraud", ["fraud_model"]),
        ("compliance", ["gate"]),
    ],
)
def test_asset_graph_shows_the_assets_of_a_group(dagster_ui: str, group: str, names: list[str]) -> None:
    page = read_page(f"{dagster_ui}/locations/orchestration.definitions/asset-groups/{group}/lineage")
    for name in names:
        assert f">{name}<" in page
