"""Fraud and disputes."""

from datetime import timedelta

from tests.warehouse.analyses.landed import (
    OPEN,
    Answer,
    Landed,
    Payment,
    Row,
    basis_points,
    day,
    grouped,
    in_order,
    month,
    ratio,
    total,
)


def fraud_caught_at_a_review_budget(landed: Landed) -> Answer:
    known = [row for row in landed.documents("fraud_decisions") if row["outcome"] is not None]
    by_score = sorted(known, key=lambda row: (-row["score"], row["charge_id"]))

    def value(rows: list[Row]) -> int:
        found = [landed.payment.get((row["merchant_id"], row["charge_id"])) for row in rows]
        return total(payment.usd for payment in found if payment is not None)

    answer: Answer = []
    for percent in (None, 1, 5, 10, 20):
        if percent is None:
            reviewed = [row for row in known if row["decision"] != "allow"]
        else:
            reviewed = by_score[: -(-percent * len(known) // 100)]
        names = {row["charge_id"] for row in reviewed}
        frauds = [row for row in known if row["outcome"] == "fraud"]
        caught = [row for row in frauds if row["charge_id"] in names]
        missed = [row for row in frauds if row["charge_id"] not in names]
        answer.append(
            {
                "decided_by": "as decided" if percent is None else "by score",
                "budget_percent": percent,
                "reviewed_count": len(reviewed),
                "caught_count": len(caught),
                "missed_count": len(missed),
                "caught_usd_minor": value(caught),
                "missed_usd_minor": value(missed),
                "caught_value_basis_points": basis_points(value(caught), value(frauds)),
                "precision_basis_points": basis_points(len(caught), len(reviewed)),
            }
        )
    return answer


def card_testing_bursts(landed: Landed) -> Answer:
    answer = []
    for device, rows in grouped([p for p in landed.payments if p.device_id is not None], lambda p: p.device_id).items():
        bursts: list[tuple[Payment, int, int]] = []
        for row in rows:
            hour = [other for other in rows if timedelta(0) <= row.paid_at - other.paid_at <= timedelta(hours=1)]
            failed = sum(other.has_failed for other in hour)
            if len(hour) >= 4 and 2 * failed >= len(hour):
                bursts.append((row, len(hour), failed))
        if bursts:
            answer.append(
                {
                    "device_id": device,
                    "burst_from": min(row.paid_at for row, _, _ in bursts),
                    "burst_until": max(row.paid_at for row, _, _ in bursts),
                    "most_attempts_1h": max(attempts for _, attempts, _ in bursts),
                    "most_failed_1h": max(failed for _, _, failed in bursts),
                    "payment_method_count": len({(row.merchant_id, row.method_id) for row in rows}),
                    "merchant_count": len({row.merchant_id for row in rows}),
                    "captured_count": sum(row.is_captured for row in rows),
                    "captured_usd_minor": total(row.captured_usd for row in rows),
                }
            )
    return in_order(answer, "-most_attempts_1h", "device_id")


def chargeback_ratio_by_merchant(landed: Landed) -> Answer:
    captured = grouped([p for p in landed.payments if p.is_captured], lambda p: (month(p.day), p.merchant_id))
    answer = []
    for place, rows in grouped(
        landed.disputes, lambda row: (month(day(row["created_at"])), row["merchant_id"])
    ).items():
        first, merchant = place
        sales = len(captured.get(place, []))
        share = basis_points(len(rows), sales)
        standing = "within"
        if share is None:
            standing = "no sales"
        elif share >= 65:
            standing = "over" if share >= 90 else "near"
        answer.append(
            {
                "month_start_on": first,
                "merchant_id": merchant,
                "business_name": landed.name_of(merchant),
                "dispute_count": len(rows),
                "captured_count": sales,
                "disputed_usd_minor": total(row["usd"] for row in rows),
                "ratio_basis_points": share,
                "standing": standing,
            }
        )
    return answer


def dispute_win_rate_by_reason(landed: Landed) -> Answer:
    answer = []
    for reason, rows in grouped(landed.disputes, lambda row: row["reason"]).items():
        still = [row for row in rows if row["status"] in OPEN]
        won = [row for row in rows if row["status"] == "won"]
        lost = [row for row in rows if row["status"] == "lost"]
        days = [(day(row["closed_at"]) - day(row["created_at"])).days for row in rows if row["closed_at"] is not None]
        answer.append(
            {
                "reason": reason,
                "dispute_count": len(rows),
                "open_count": len(still),
                "won_count": len(won),
                "lost_count": len(lost),
                "win_rate_basis_points": basis_points(len(won), len(won) + len(lost)),
                "open_usd_minor": total(row["usd"] for row in still),
                "won_usd_minor": total(row["usd"] for row in won),
                "lost_usd_minor": total(row["usd"] for row in lost),
                "mean_tenths_of_days_to_close": ratio(10 * sum(days), len(days)),
            }
        )
    return in_order(answer, "-lost_usd_minor", "reason")


def dispute_rate_by_merchant(landed: Landed) -> Answer:
    captured = grouped([p for p in landed.payments if p.is_captured], lambda p: p.merchant_id)
    answer = []
    for merchant, rows in grouped(landed.disputes, lambda row: row["merchant_id"]).items():
        days = [(day(row["created_at"]) - row["payment"].day).days for row in rows]
        answer.append(
            {
                "merchant_id": merchant,
                "business_name": landed.name_of(merchant),
                "vertical": landed.categories[landed.mcc_of(merchant)]["vertical"],
                "dispute_count": len(rows),
                "fraudulent_count": sum(row["reason"] == "fraudulent" for row in rows),
                "disputed_usd_minor": total(row["usd"] for row in rows),
                "mean_tenths_of_days_from_payment": ratio(10 * sum(days), len(days)),
                "disputed_basis_points": basis_points(len(rows), len(captured[merchant])),
            }
        )
    return in_order(answer, "-disputed_basis_points", "merchant_id")
