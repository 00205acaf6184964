"""What the diagrams read from a dbt manifest."""

import json
from pathlib import Path

import pytest

from payments.diagrams.bus_matrix import draw_bus_matrix
from payments.diagrams.manifest import load_manifest, models_of_layer, read_marts
from payments.diagrams.model import Column, Reference
from payments.errors import UsageError
from tests.diagrams.manifests import manifest


def test_marts_come_with_types_keys_and_proved_references() -> None:
    marts = {entity.name: entity for entity in read_marts(manifest())}
    assert list(marts) == ["dim_date", "dim_merchant", "fct_payments", "fct_refunds"]
    payments = marts["fct_payments"]
    assert payments.group == "facts"
    assert payments.primary_key == ("payment_key",)
    assert payments.columns[0] == Column("payment_key", "text", is_nullable=False)
    assert payments.columns[-1] == Column("anomaly_score", "numeric(5,4)", is_nullable=True)
    assert payments.references == (
        Reference(("merchant_key",), "dim_merchant", ("merchant_key",)),
        Reference(("paid_on",), "dim_date", ("date_day",)),
        Reference(("settled_on",), "dim_date", ("date_day",)),
    )
    assert marts["dim_merchant"].column("created_at").data_type == "timestamptz"


def test_a_model_may_refer_to_itself() -> None:
    refunds = read_marts(manifest())[-1]
    assert Reference(("refunded_payment_key",), "fct_refunds", ("refund_key",)) in refunds.references


def test_declared_constraints_are_keys_too() -> None:
    declared = manifest()
    model = declared["nodes"]["model.payments.fct_payments"]
    model["constraints"] = [{"type": "primary_key", "columns": ["merchant_key", "payment_key"]}]
    model["columns"]["paid_on"]["constraints"] = [{"type": "not_null"}]
    payments = next(entity for entity in read_marts(declared) if entity.name == "fct_payments")
    assert payments.primary_key == ("merchant_key", "payment_key")
    assert not payments.column("paid_on").is_nullable


def test_columns_are_required_by_a_test_of_the_model() -> None:
    declared = manifest()
    declared["nodes"]["test.payments.required_columns_fct_payments"] = {
        "resource_type": "test",
        "attached_node": "model.payments.fct_payments",
        "column_name": None,
        "test_metadata": {"name": "required_columns", "kwargs": {"columns": ["paid_on"]}},
        "depends_on": {"nodes": ["model.payments.fct_payments"]},
    }
    payments = next(entity for entity in read_marts(declared) if entity.name == "fct_payments")
    assert not payments.column("paid_on").is_nullable
    assert payments.column("settled_on").is_nullable


def test_layers_are_told_apart() -> None:
    assert models_of_layer(manifest(), "staging") == ["stg_oltp__refunds"]
    assert len(models_of_layer(manifest(), "marts")) == 4


def test_bus_matrix_names_the_columns_of_each_role() -> None:
    lines = draw_bus_matrix(read_marts(manifest()), "stars").splitlines()
    assert lines[0] == "| | `dim_date` | `dim_merchant` |"
    assert lines[2] == "| [`fct_payments`](stars/fct_payments.svg) | `paid_on`, `settled_on` | `merchant_key` |"
    assert lines[3] == "| [`fct_refunds`](stars/fct_refunds.svg) |  |  |"


def test_a_missing_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="dbt parse"):
        load_manifest(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text(json.dumps(manifest()))
    assert load_manifest(tmp_path / "manifest.json") == manifest()
