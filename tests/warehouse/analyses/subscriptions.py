"""Subscriptions: what is sold by plan, and what is lost."""

from collections import Counter, defaultdict
from datetime import UTC, datetime, time, timedelta
from fractions import Fraction

from tests.warehouse.analyses.landed import (
    Answer,
    Landed,
    Row,
    basis_points,
    day,
    grouped,
    in_order,
    month,
    ratio,
    total,
)

_A_YEAR = {"day": 365, "week": 52, "month": 12, "year": 1}


def revenue_by_price_tier(landed: Landed) -> Answer:
    recurring = [row for row in landed.rows("prices") if row["billing_interval"] is not None]
    subscription_of = {
        (row["merchant_id"], row["invoice_id"]): row["subscription_id"] for row in landed.rows("invoices")
    }
    lines = grouped(landed.rows("invoice_lines"), lambda row: (row["merchant_id"], row["price_id"], row["currency"]))
    answer = []
    for (merchant, currency), prices in grouped(recurring, lambda row: (row["merchant_id"], row["currency"])).items():
        least, most = min(map(_monthly, prices)), max(map(_monthly, prices))
        tier_of = {_monthly(row): "middle" for row in prices} | {most: "top"} | {least: "entry"}
        tiers: dict[str, list[Row]] = {}
        for row in prices:
            tiers.setdefault(tier_of[_monthly(row)], []).append(row)
        sold = {
            tier: [line for price in members for line in lines.get((merchant, price["price_id"], currency), [])]
            for tier, members in tiers.items()
        }
        invoiced = {tier: sum(line["amount_minor"] for line in found) for tier, found in sold.items()}
        answer += [
            {
                "merchant_id": merchant,
                "currency": currency,
                "tier": tier,
                "price_count": len(tiers[tier]),
                "subscription_count": len(
                    {subscription_of[merchant, line["invoice_id"]] for line in sold[tier]} - {None}
                ),
                "quantity": sum(line["quantity"] for line in sold[tier]),
                "invoiced_amount_minor": invoiced[tier],
                "share_basis_points": basis_points(invoiced[tier], max(sum(invoiced.values()), 0)),
            }
            for tier in sorted(tiers)
        ]
    return answer


def mrr_bridge_by_month(landed: Landed) -> Answer:
    """Of subscriptions that landed once: their record, as it stands, tells what was before."""
    standing = [row for row in landed.rows("subscriptions") if _lived(row) is not None]
    now = landed.as_of
    first = min(month(day(row["created_at"])) for row in landed.rows("subscriptions"))
    opening: dict[tuple[str, str, str], int] = {}
    answer: Answer = []
    previous = None
    while first <= now.date():
        following = month(first + timedelta(days=31))
        measured = min(datetime.combine(following, time(), UTC) - timedelta(microseconds=1), now)
        closing: dict[tuple[str, str, str], int] = dict.fromkeys(opening, 0)
        for row in standing:
            for currency, amount in _mrr(landed, row, measured).items():
                customer = (row["merchant_id"], row["customer_id"], currency)
                if amount or customer in closing:
                    closing[customer] = closing.get(customer, 0) + amount
        sums = Counter[str]()
        for customer, after in closing.items():
            before = opening.get(customer, 0)
            was, becomes = (total([landed.usd(amount, customer[2], day(measured))]) for amount in (before, after))
            kind = "expansion" if after > before else "contraction"
            if before == 0 and after:
                kind = "reactivation" if customer in opening else "new"
            elif after == 0:
                kind = "churn"
            sums["opening"] += was
            sums["closing"] += becomes
            sums["customers"] += after > 0
            if after != before:
                sums[kind] += becomes - was
                sums[f"{kind} customers"] += 1
        if closing:
            answer.append(
                {
                    "month_start_on": first,
                    "rates_usd_minor": None if previous is None else sums["opening"] - previous,
                    **{
                        f"{kind}_usd_minor": sums[kind]
                        for kind in ("opening", "new", "reactivation", "expansion", "contraction", "churn", "closing")
                    },
                    "new_customer_count": sums["new customers"],
                    "churn_customer_count": sums["churn customers"],
                    "closing_customer_count": sums["customers"],
                    "churned_basis_points": basis_points(-sums["churn"], sums["opening"]),
                }
            )
            previous = sums["closing"]
        opening, first = closing, following
    return answer


def _lived(subscription: Row) -> tuple[datetime, datetime | None] | None:
    """From when until when a subscription was to be paid for; None for one that never was."""
    if subscription["status"] in {"incomplete", "incomplete_expired", "trialing"}:
        return None
    begins = subscription["created_at"]
    if subscription["trial_end_at"] is not None:
        tried_until = min(subscription["trial_end_at"], subscription["ended_at"] or subscription["trial_end_at"])
        begins = max(begins, tried_until)
    if subscription["status"] in {"active", "past_due"}:
        return begins, None
    return begins, max(begins, subscription["ended_at"] or subscription["updated_at"])


def _mrr(landed: Landed, subscription: Row, at: datetime) -> dict[str, int]:
    """What a subscription comes to a month at a moment, by currency."""
    begins, ends = _lived(subscription) or (at, at)
    if at < begins or (ends is not None and at >= ends):
        return {}

    def of(row: Row) -> bool:
        names = ("merchant_id", "subscription_id")
        return all(row[name] == subscription[name] for name in names)

    prices = {(row["merchant_id"], row["price_id"]): row for row in landed.rows("prices")}
    coupons = {(row["merchant_id"], row["coupon_id"]): row for row in landed.rows("coupons")}
    gross: dict[str, int] = defaultdict(int)
    for item in filter(of, landed.rows("subscription_items")):
        price = prices[item["merchant_id"], item["price_id"]]
        if price["billing_interval"] is not None and max(item["created_at"], price["created_at"]) <= at:
            gross[price["currency"]] += _monthly(price, item["quantity"])
    off = 0
    for discount in filter(of, landed.rows("discounts")):
        coupon = coupons[discount["merchant_id"], discount["coupon_id"]]
        if coupon["duration"] != "once" and discount["starts_at"] <= at < (
            discount["ends_at"] or datetime.max.replace(tzinfo=UTC)
        ):
            assert coupon["amount_off_minor"] is None, "no amount is taken off more than once"
            off += coupon["percent_off_basis_points"]
    return {currency: amount - min(round(Fraction(amount * off, 10_000)), amount) for currency, amount in gross.items()}


def _monthly(price: Row, quantity: int = 1) -> int:
    times = Fraction(_A_YEAR[price["billing_interval"]], 12 * price["interval_count"])
    return round(int(price["unit_amount_minor"]) * quantity * times)


def churn_by_plan(landed: Landed) -> Answer:
    products = {(row["merchant_id"], row["product_id"]): row["product_name"] for row in landed.rows("products")}
    prices = {(row["merchant_id"], row["price_id"]): row for row in landed.rows("prices")}
    subscription_of = {
        (row["merchant_id"], row["invoice_id"]): row["subscription_id"] for row in landed.rows("invoices")
    }
    plan: dict[tuple[str, str], str] = {}
    for line in sorted(landed.rows("invoice_lines"), key=lambda row: (row["created_at"], row["invoice_line_id"])):
        subscription = subscription_of[line["merchant_id"], line["invoice_id"]]
        if subscription is not None and line["price_id"] is not None:
            plan.setdefault((line["merchant_id"], subscription), line["price_id"])
    answer = []
    for (merchant, price_id), rows in grouped(
        landed.rows("subscriptions"),
        lambda row: (row["merchant_id"], plan.get((row["merchant_id"], row["subscription_id"]))),
    ).items():
        price = prices.get((merchant, price_id), {})
        days = [
            (day(row["ended_at"] or row["updated_at"]) - day(row["created_at"])).days
            for row in rows
            if row["status"] in {"canceled", "unpaid"}
        ]
        answer.append(
            {
                "merchant_id": merchant,
                "product_name": products.get((merchant, price.get("product_id")), "never invoiced"),
                "price_id": price_id or "-",
                "currency": price.get("currency"),
                "unit_amount_minor": price.get("unit_amount_minor"),
                "subscription_count": len(rows),
                "churned_count": len(days),
                "churn_rate_basis_points": basis_points(len(days), len(rows)),
                "mean_tenths_of_days_to_churn": ratio(10 * sum(days), len(days)),
            }
        )
    return in_order(answer, "merchant_id", "product_name", "price_id")
