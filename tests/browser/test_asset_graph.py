"""The Dagster asset graph as a browser shows it."""

import re

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
    address = f"{dagster_ui}/locations/orchestration.definitions/asset-groups/{group}/lineage"
    page = read_page(address, width=2400, height=6000)  # the graph draws what its window shows
    shown = set(re.sub(r"<[^>]*>", " ", page).split())
    assert shown >= set(names)
