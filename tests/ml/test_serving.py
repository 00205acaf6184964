"""Training and scoring against the document store: published once, scored once, picked up where it stopped."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pymongo.database import Database

from ml.registry import champion
from ml.score import score
from ml.train import last_report, train
from payments.errors import UsageError
from payments.settings import settings
from tests.ml.features import change_warehouse, write_warehouse


@pytest.fixture
def served(documents: Database[dict[str, Any]], platform_home: Path) -> tuple[Database[dict[str, Any]], Path]:
    """The emptied document store and a warehouse with features."""
    warehouse = platform_home / "warehouse.duckdb"
    write_warehouse(warehouse)
    return documents, warehouse


def test_training_publishes_the_champion_and_training_again_changes_nothing(
    served: tuple[Database[dict[str, Any]], Path],
) -> None:
    documents, _ = served
    report = train()
    first = list(documents["models"].find(sort=[("_id", 1)]))
    text = (settings().home / "models" / report.model_version / "model.txt").read_bytes()
    assert train() == report == last_report()
    assert list(documents["models"].find(sort=[("_id", 1)])) == first
    assert (settings().home / "models" / report.model_version / "model.txt").read_bytes() == text
    assert {(found["_id"], found["status"]) for found in first} == {
        ("champion", "champion"),
        (report.model_version, "trained"),
    }
    assert text.decode() == first[0]["model"] == first[1]["model"]
    model, since = champion()
    assert model.version == report.model_version
    assert datetime.fromtimestamp(since / 1e6, UTC).isoformat() == report.split["test_start"]


def test_another_model_takes_over_and_the_old_one_stays(served: tuple[Database[dict[str, Any]], Path]) -> None:
    documents, warehouse = served
    old = train().model_version
    change_warehouse(warehouse, "update dev_features.feat_payments set is_new_country = 1 where payment_id = 'ch_1'")
    new = train().model_version
    assert new != old
    assert champion()[0].version == new
    assert documents["models"].count_documents({"_id": {"$in": [old, new]}}) == 2


def test_every_payment_since_training_is_scored_once(served: tuple[Database[dict[str, Any]], Path]) -> None:
    documents, warehouse = served
    train()
    first = score()
    assert first.written == first.payments == documents["fraud_scores"].count_documents({})
    assert sum(first.decisions.values()) == first.payments
    stored = list(documents["fraud_scores"].find(sort=[("_id", 1)]))
    assert score().written == 0
    assert list(documents["fraud_scores"].find(sort=[("_id", 1)])) == stored
    # The as-of moment is that of the last payment: number 3,999, one every 20 minutes since the first of January.
    assert {found["scored_at"] for found in stored} == {datetime(2026, 2, 25, 13, 0, tzinfo=UTC)}

    # A scoring that was stopped half-way: what is missing comes back as it was.
    documents["fraud_scores"].delete_many({"_id": {"$in": [found["_id"] for found in stored[::3]]}})
    assert score().written == len(stored[::3])
    again = list(documents["fraud_scores"].find(sort=[("_id", 1)]))
    assert [found | {"written_at": None} for found in again] == [found | {"written_at": None} for found in stored]

    # A payment that arrives later is scored; the others keep their scores.
    change_warehouse(
        warehouse,
        """
        insert into dev_features.feat_payments
        select * replace ('later' as payment_key, 'ch_later' as payment_id, paid_at + interval 1 hour as paid_at)
        from dev_features.feat_payments where payment_id = 'ch_3999';
        insert into dev_marts.fct_payments values ('later', 'succeeded');
        """,
    )
    assert score().written == 1
    (later,) = documents["fraud_scores"].find({"payment_id": "ch_later"})
    assert later["scored_at"] == datetime(2026, 2, 25, 14, 0, tzinfo=UTC)
    assert later["decision"] in {"allow", "review", "block"}


def test_scoring_without_a_model_says_what_to_do(served: tuple[Database[dict[str, Any]], Path]) -> None:
    assert served
    with pytest.raises(UsageError, match="no model is published"):
        score()


def test_a_model_refuses_other_features_than_it_learned(served: tuple[Database[dict[str, Any]], Path]) -> None:
    _, warehouse = served
    train()
    change_warehouse(warehouse, "alter table dev_features.feat_payments add column brand_new bigint")
    with pytest.raises(UsageError, match="train again"):
        score()


def test_without_a_training_there_is_no_last_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("PAYMENTS_HOME", str(tmp_path))
        settings.cache_clear()
        with pytest.raises(UsageError, match="no model was trained"):
            last_report()
    settings.cache_clear()
