"""The books, and what the bank tells of them."""

import json
from collections import defaultdict
from datetime import date
from typing import Any

from tests.warehouse.analyses.landed import Answer, Landed, Row, grouped, seed


def books_that_do_not_balance(landed: Landed) -> Answer:
    answer = []
    for (merchant, currency), rows in grouped(
        landed.rows("ledger_entries"), lambda row: (row["merchant_id"], row["currency"])
    ).items():
        balance: dict[str, int] = defaultdict(int)
        sums = {"D": 0, "C": 0}
        for row in rows:
            sums[row["side"]] += row["amount_minor"]
            balance[row["ledger_transaction_id"]] += row["amount_minor"] * (1 if row["side"] == "D" else -1)
        answer.append(
            {
                "merchant_id": merchant,
                "currency": currency,
                "transaction_count": len(balance),
                "entry_count": len(rows),
                "debit_minor": sums["D"],
                "credit_minor": sums["C"],
                "difference_minor": 0,  # the rule that every book keeps
                "unbalanced_transaction_count": 0,
            }
        )
        assert not any(balance.values()), "the operational store keeps no book that does not balance"
    return answer


def payouts_that_differ_from_the_bank(landed: Landed) -> Answer:
    statements = landed.documents("bank_statements")
    told_until: dict[str, date] = {}
    entries: list[Row] = []
    for page in statements:
        until = date.fromisoformat(str(page["period_end_on"]))
        told_until[page["currency"]] = max(until, told_until.get(page["currency"], until))
        entries += [entry for entry in json.loads(page["entries"]) if entry["status"] == "booked"]
    payouts = {(row["payout_id"], row["currency"]): row for row in landed.rows("payouts")}
    booked = grouped(entries, lambda entry: (entry["payout_id"], entry["currency"]))

    found: list[dict[str, Any]] = []
    for place, payout in payouts.items():
        own = booked.get(place, [])
        if not own and payout["status"] != "paid":
            continue
        sent = sum(entry["amount_minor"] for entry in own if entry["direction"] == "debit")
        back = sum(entry["amount_minor"] for entry in own if entry["direction"] == "credit")
        owed = 0 if payout["status"] in {"failed", "canceled"} else payout["amount_minor"]
        days = [date.fromisoformat(entry["booked_on"]) for entry in own if entry["direction"] == "debit"]
        on = min(days) if days else max((date.fromisoformat(entry["booked_on"]) for entry in own), default=None)
        late = None if on is None else (on - payout["arrival_date"]).days
        if not own:
            if told_until.get(payout["currency"], date.min) < payout["arrival_date"]:
                continue  # awaited
            outcome = "missing_at_bank"
        elif back and sent == back:
            outcome = "returned"
        elif sent - back != owed:
            outcome = "different_amount"
        elif late is not None and late > 0:
            outcome = "late"
        else:
            continue
        found.append(
            {
                "outcome": outcome,
                "currency": payout["currency"],
                "merchant_id": payout["merchant_id"],
                "owed": owed,
                "bank": sent - back,
                "late": late,
            }
        )
    for entry in entries:
        if (entry["payout_id"], entry["currency"]) not in payouts:
            bank = entry["amount_minor"] * (1 if entry["direction"] == "debit" else -1)
            row = {
                "outcome": "unexplained",
                "currency": entry["currency"],
                "merchant_id": None,
                "owed": 0,
                "bank": bank,
            }
            found.append(row | {"late": None})

    names = {row["currency"]: row["currency_name"] for row in seed("currencies")}
    return [
        {
            "outcome": outcome,
            "currency": currency,
            "currency_name": names[currency],
            "row_count": len(rows),
            "merchant_count": len({row["merchant_id"] for row in rows} - {None}),
            "payout_amount_minor": sum(row["owed"] for row in rows),
            "bank_amount_minor": sum(row["bank"] for row in rows),
            "difference_minor": sum(row["bank"] - row["owed"] for row in rows),
            "most_days_late": max((row["late"] for row in rows if row["late"] is not None), default=None),
        }
        for (outcome, currency), rows in grouped(found, lambda row: (row["outcome"], row["currency"])).items()
    ]
