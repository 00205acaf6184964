"""Payments: which go through, which come back, and what happens this minute."""

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from typing import Any

from tests.warehouse.analyses.landed import (
    Answer,
    Landed,
    basis_points,
    day,
    grouped,
    in_order,
    month,
    percentile,
    total,
)


def authorization_rate_by_issuer_country(landed: Landed) -> Answer:
    decided = [p for p in landed.payments if p.status != "pending"]
    answer: Answer = []
    for (country, method, first), rows in grouped(
        decided, lambda p: (p.issuer_country, p.method, month(p.day))
    ).items():
        authorized = sum(not row.has_failed for row in rows)
        rate = basis_points(authorized, len(rows))
        before = answer[-1] if answer else {}
        is_same = (before.get("issuer_country"), before.get("payment_method_type")) == (country, method) and before
        answer.append(
            {
                "issuer_country": country,
                "payment_method_type": method,
                "month_start_on": first,
                "attempt_count": len(rows),
                "authorized_count": authorized,
                "authorization_rate_basis_points": rate,
                "change_basis_points": rate - before["authorization_rate_basis_points"]
                if rate is not None and is_same
                else None,
            }
        )
    return answer


def declined_revenue_by_reason(landed: Landed) -> Answer:
    attempts = Counter(payment.method for payment in landed.payments)
    failed = [payment for payment in landed.payments if payment.has_failed]
    return in_order(
        [
            {
                "payment_method_type": method,
                "failure_code": code,
                "declined_count": len(rows),
                "declined_usd_minor": total(row.usd for row in rows),
                "share_of_attempts_basis_points": basis_points(len(rows), attempts[method]),
            }
            for (method, code), rows in grouped(failed, lambda p: (p.method, p.failure_code or "unknown")).items()
        ],
        "-declined_usd_minor",
        "payment_method_type",
        "failure_code",
    )


def declines_recovered_by_retry(landed: Landed) -> Answer:
    paid: dict[Any, list[datetime]] = defaultdict(list)
    for payment in landed.payments:
        if payment.is_captured:
            paid[payment.customer, payment.currency, payment.amount].append(payment.paid_at)
    declines = [payment for payment in landed.payments if payment.has_failed and payment.customer_id is not None]
    recovered = {
        decline
        for decline in declines
        if any(
            timedelta(0) < at - decline.paid_at <= timedelta(days=7)
            for at in paid[decline.customer, decline.currency, decline.amount]
        )
    }
    return in_order(
        [
            {
                "failure_code": code,
                "declined_count": len(rows),
                "recovered_count": sum(row in recovered for row in rows),
                "recovery_rate_basis_points": basis_points(sum(row in recovered for row in rows), len(rows)),
                "recovered_usd_minor": total(row.usd for row in rows if row in recovered),
                "lost_usd_minor": total(row.usd for row in rows if row not in recovered),
            }
            for code, rows in grouped(declines, lambda decline: decline.failure_code or "unknown").items()
        ],
        "-lost_usd_minor",
        "failure_code",
    )


def refund_delays(landed: Landed) -> Answer:
    answer = []
    for reason, rows in grouped(landed.refunds, lambda refund: refund["reason"] or "unknown").items():
        delays = [(row["created_at"] - row["payment"].paid_at) // timedelta(seconds=1) for row in rows]
        answer.append(
            {
                "reason": reason,
                "refund_count": len(rows),
                "refunded_usd_minor": total(row["usd"] for row in rows),
                **{f"p{percent}_seconds": percentile(percent, delays) for percent in (50, 90, 99)},
                "longest_seconds": max(delays),
            }
        )
    return in_order(answer, "-refund_count", "reason")


def customers_who_never_managed_to_pay(landed: Landed) -> Answer:
    without = [
        rows
        for (_, customer_id), rows in grouped(landed.payments, lambda payment: payment.customer).items()
        if customer_id is not None and all(row.has_failed for row in rows)
    ]
    answer = []
    for merchant, customers in grouped(without, lambda rows: rows[0].merchant_id).items():
        last = [max(rows, key=lambda row: (row.paid_at, row.payment_id)) for rows in customers]
        answer.append(
            {
                "merchant_id": merchant,
                "business_name": landed.name_of(merchant),
                "customer_count": len(customers),
                "attempt_count": sum(len(rows) for rows in customers),
                "attempted_usd_minor": total(row.usd for rows in customers for row in rows),
                "without_funds_count": sum(row.failure_code == "insufficient_funds" for row in last),
            }
        )
    return in_order(answer, "-customer_count", "merchant_id")


def revenue_and_fraud_of_the_last_minutes(landed: Landed) -> Answer:
    def is_recent(at: datetime) -> bool:
        return landed.as_of - timedelta(minutes=60) < at <= landed.as_of

    revenue: dict[Any, list[Counter[str]]] = defaultdict(list)
    fraud: dict[Any, list[Counter[str]]] = defaultdict(list)

    def at_place(at: datetime, merchant_id: str, currency: str) -> tuple[datetime, str, str]:
        return at.replace(second=0, microsecond=0), merchant_id, currency

    for p in landed.payments:
        if is_recent(p.paid_at):
            place, is_risky = at_place(p.paid_at, p.merchant_id, p.currency), p.anomaly_score >= 0.9
            revenue[place].append(Counter(payment=1, failed=p.has_failed, captured=p.captured))
            fraud[place].append(Counter(risky=is_risky, risky_amount=p.amount * is_risky))
    for row in landed.refunds:
        if is_recent(row["created_at"]):
            place = at_place(row["created_at"], row["merchant_id"], row["currency"])
            revenue[place].append(Counter(refunded=row["amount_minor"]))
    for row in landed.rows("early_fraud_warnings"):
        if is_recent(row["created_at"]):
            warned = landed.payment[row["merchant_id"], row["charge_id"]]
            fraud[at_place(row["created_at"], row["merchant_id"], warned.currency)].append(Counter(warning=1))
    for row in landed.disputes:
        if is_recent(row["created_at"]) and row["reason"] == "fraudulent":
            fraud[at_place(row["created_at"], row["merchant_id"], row["currency"])].append(Counter(dispute=1))

    def told(found: list[Counter[str]] | None, measure: str) -> int | None:
        return sum(counter[measure] for counter in found) if found else None

    return in_order(
        [
            {
                "minute_at": minute,
                "business_name": landed.name_of(merchant_id),
                "currency": currency,
                "payment_count": told(revenue.get(place), "payment"),
                "failed_count": told(revenue.get(place), "failed"),
                "captured_amount_minor": told(revenue.get(place), "captured"),
                "refunded_amount_minor": told(revenue.get(place), "refunded"),
                "risky_count": told(fraud.get(place), "risky"),
                "risky_amount_minor": told(fraud.get(place), "risky_amount"),
                "warning_count": told(fraud.get(place), "warning"),
                "fraud_dispute_count": told(fraud.get(place), "dispute"),
            }
            for place in {*revenue, *fraud}
            for minute, merchant_id, currency in [place]
        ],
        "-minute_at",
        "business_name",
        "currency",
    )


def session_funnel_by_source(landed: Landed) -> Answer:
    steps = ["page_view", "product_view", "add_to_cart", "checkout_started", "payment_submitted"]
    depth: dict[str, int] = defaultdict(int)
    for event in landed.documents("click_events"):
        if event["event_type"] in steps:
            depth[event["session_id"]] = max(depth[event["session_id"]], 1 + steps.index(event["event_type"]))
    captured = {
        (row["merchant_id"], row["payment_intent_id"])
        for row in landed.rows("charges")
        if row["amount_captured_minor"] > 0
    }
    answer = []
    for source, rows in grouped(landed.documents("sessions"), lambda row: row["utm_source"] or "direct").items():
        reached = [sum(depth[row["session_id"]] >= number for row in rows) for number in range(1, 6)]
        paid = sum((row["merchant_id"], row["payment_intent_id"]) in captured for row in rows)
        answer.append(
            {
                "utm_source": source,
                "session_count": len(rows),
                **{f"{step}_count": count for step, count in zip(steps, reached, strict=True)},
                "paid_count": paid,
                "checkout_basis_points": basis_points(reached[3], len(rows)),
                "paid_basis_points": basis_points(paid, len(rows)),
            }
        )
    return in_order(answer, "-session_count", "utm_source")


def time_to_payout(landed: Landed) -> Answer:
    payouts = {(row["merchant_id"], row["payout_id"]): row for row in landed.rows("payouts") if row["status"] == "paid"}
    payout_of = {
        (row["merchant_id"], row["balance_transaction_id"]): row["payout_id"]
        for row in landed.rows("payout_balance_transactions")
    }
    found = []
    for row in landed.rows("balance_transactions"):
        payout = payouts.get(
            (row["merchant_id"], payout_of.get((row["merchant_id"], row["balance_transaction_id"]), ""))
        )
        if row["type"] == "charge" and payout is not None:
            payment = landed.payment[row["merchant_id"], row["source_id"]]
            on = day(row["created_at"])
            # The net at its value: what was taken less the fee, each rounded on its own.
            net = total([landed.usd(row["amount_minor"], row["currency"], on)])
            net -= total([landed.usd(row["fee_minor"], row["currency"], on)])
            country = landed.merchants[row["merchant_id"]]["country"]
            found.append((country, (payout["arrival_date"] - payment.day).days, net))
    return [
        {
            "country": country,
            "payment_count": len(rows),
            "net_usd_minor": sum(net for _, _, net in rows),
            "fewest_days": min(days for _, days, _ in rows),
            "p50_days": percentile(50, [days for _, days, _ in rows]),
            "p90_days": percentile(90, [days for _, days, _ in rows]),
            "most_days": max(days for _, days, _ in rows),
        }
        for country, rows in grouped(found, lambda row: row[0]).items()
    ]
