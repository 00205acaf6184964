"""A small, dense history of transactions: seeded, with ties within a second, late labels and gaps."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

START = datetime(2025, 3, 1, tzinfo=UTC)
DAYS = 60
Row = dict[str, Any]


def transactions(count: int, seed: int) -> list[Row]:
    """Transactions of 12 customers at 6 merchants; one in twelve is a fraud, known 1 to 20 days later."""
    draw = random.Random(seed)  # noqa: S311 - a repeatable sample, no secret
    moments = [START + timedelta(seconds=draw.randrange(DAYS * 86_400)) for _ in range(count * 9 // 10)]
    # The rest falls on a moment that is there already: same second, other transaction.
    moments += [draw.choice(moments) for _ in range(count - len(moments))]
    rows: list[Row] = []
    for number, at in enumerate(moments):
        is_fraud = draw.random() < 1 / 12
        known_at = at + timedelta(days=draw.randrange(1, 20), seconds=draw.randrange(86_400)) if is_fraud else None
        rows.append(
            {
                "transaction_id": f"t{number:05d}",
                "merchant_id": draw.choice([*(f"shop{n}" for n in range(6)), ""]),
                "customer_id": f"person{draw.randrange(12)}",
                "amount_minor": draw.choice([0, 99, 450, draw.randrange(100, 90_000)]),
                "currency": draw.choice(["USD", "EUR", "JPY", "KWD", "BHD"]),
                "payment_method": "card",
                "transaction_at": at.isoformat(),
                "ip_country": draw.choice(["DE", "FR", "US", ""]),
                "device_type": draw.choice(["mobile", "desktop", "terminal", ""]),
                "status": draw.choice(["succeeded", "succeeded", "failed", "refunded", "pending", ""]),
                "anomaly_score": f"{draw.random():.4f}",
                "is_fraud": "true" if is_fraud else "false",
                "fraud_known_at": known_at.isoformat() if known_at else "",
            }
        )
    return rows


def write(rows: list[Row], path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path
