"""Subscriptions: what is sold by plan, and what is lost."""

from fractions import Fraction
from tests.warehouse.analyses.landed import Answer, Landed, Row, basis_points, day, grouped, in_order, ratio

_A_YEAR = {"day": 365, "week": 52, "month": 12, "year": 1}


def revenue_by_price_tier(landed: Landed) -> Answer:
    recurring = [row for row in landed.rows("prices") if row["billing_interval"] is not None]
    subscription_of = {
        (row["merchant_id"], row["invoice_id"]): row["subscription_id"] for row in landed.rows("invoices")
    }
    lines = grouped(landed.rows("invoice_lines"), lambda row: (row["merchant_id"], row["price_id"], row["currency"]))

    def monthly(price: Row) -> int:
        times = Fraction(_A_YEAR[price["billing_interval"]], 12 * price["interval_count"])
        return round(int(price["unit_amount_minor"]) * times)

    answer = []
    for (merchant, currency), prices in grouped(recurring, lambda row: (row["merchant_id"], row["currency"])).items():
        least, most = min(map(monthly, prices)), max(map(monthly, prices))
        tier_of = {monthly(row): "middle" for row in prices} | {most: "top"} | {least: "entry"}
        tiers: dict[str, list[Row]] = {}
        for row in prices:
            tiers.setdefault(tier_of[monthly(row)], []).append(row)
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
