"""What applications ask for, as conversations: each yields requests, is given their answers, and decides what is next.

Pure: nothing here knows how a request is sent, repeated or lost.
"""

from collections.abc import Generator
from dataclasses import dataclass
from random import Random

from payments.simulation.traffic_shops import Shop

_DECLINED = 0.08
_DECLINE_CODES = ("card_declined", "insufficient_funds", "expired_card")
_REFUNDED = 0.10
_DISPUTED = 0.03


@dataclass(frozen=True)
class Request:
    """One operation of ``api.call`` for a merchant."""

    merchant_id: str
    operation: str
    parameters: dict[str, object]


@dataclass(frozen=True)
class Answer:
    """What the caller was told: 200 or 402 (declined), the id of what was made, why it was declined."""

    status: int
    id: str | None
    failure_code: str | None


Visit = Generator[Request, Answer, None]


def visit(draw: Random, shops: list[Shop]) -> Visit:
    """Return the next visit, drawn at random: mostly payments, and a few of everything else."""
    kind = draw.choices(list(_KINDS), list(_KINDS.values()))[0]
    return kind(draw, draw.choice(shops), shops)


def _intent(draw: Random, shop: Shop, capture_method: str) -> Request:
    customer_id, payment_method_id = draw.choice(shop.customers)
    return Request(
        shop.merchant_id,
        "payment_intents.create",
        {
            "customer_id": customer_id,
            "amount_minor": draw.randint(200, 50_000),
            "currency": shop.currency,
            "payment_method_id": payment_method_id,
            "capture_method": capture_method,
        },
    )


def _confirmation(draw: Random, shop: Shop, intent_id: str | None, failure_code: str | None = None) -> Request:
    return Request(
        shop.merchant_id,
        "payment_intents.confirm",
        {
            "payment_intent_id": intent_id,
            "failure_code": failure_code,
            "ip_country": shop.country,
            "ip_city": shop.city,
            "device_type": draw.choice(("mobile", "desktop", "tablet")),
            "anomaly_score": f"{draw.random():.4f}",
        },
    )


def _payment(draw: Random, shop: Shop, _shops: list[Shop]) -> Visit:
    intent = yield _intent(draw, shop, "automatic")
    if draw.random() < _DECLINED:
        yield _confirmation(draw, shop, intent.id, draw.choice(_DECLINE_CODES))
        if draw.random() < 0.5:
            return
    charge = yield _confirmation(draw, shop, intent.id)
    what_follows = draw.random()
    if what_follows < _REFUNDED:
        # In two parts: the second takes all that is left.
        yield Request(shop.merchant_id, "refunds.create", {"charge_id": charge.id, "amount_minor": 100})
        if draw.random() < 0.5:
            yield Request(shop.merchant_id, "refunds.create", {"charge_id": charge.id})
    elif what_follows < _REFUNDED + _DISPUTED:
        dispute = yield Request(
            shop.merchant_id, "disputes.create", {"charge_id": charge.id, "reason": "fraudulent", "fee_minor": 1500}
        )
        yield Request(
            shop.merchant_id, "disputes.close", {"dispute_id": dispute.id, "outcome": draw.choice(("won", "lost"))}
        )


def _authorization(draw: Random, shop: Shop, _shops: list[Shop]) -> Visit:
    asked = _intent(draw, shop, "manual")
    intent = yield asked
    yield _confirmation(draw, shop, intent.id)
    if draw.random() < 0.25:
        yield Request(shop.merchant_id, "payment_intents.cancel", {"payment_intent_id": intent.id})
        return
    capture: dict[str, object] = {"payment_intent_id": intent.id}
    if draw.random() < 0.3:
        capture["amount_minor"] = 150
    yield Request(shop.merchant_id, "payment_intents.capture", capture)


def _top_up(draw: Random, shop: Shop, _shops: list[Shop]) -> Visit:
    yield Request(
        shop.merchant_id, "topups.create", {"amount_minor": draw.randint(10_000, 90_000), "currency": shop.currency}
    )


def _payout(draw: Random, shop: Shop, _shops: list[Shop]) -> Visit:
    yield Request(
        shop.merchant_id, "payouts.create", {"amount_minor": draw.randint(100, 5_000), "currency": shop.currency}
    )


def _transfer(draw: Random, shop: Shop, shops: list[Shop]) -> Visit:
    other = draw.choice([other for other in shops if other != shop])
    transfer = yield Request(
        shop.merchant_id,
        "transfers.create",
        {
            "destination_merchant_id": other.merchant_id,
            "amount_minor": draw.randint(100, 5_000),
            "currency": shop.currency,
        },
    )
    if draw.random() < 0.2:
        yield Request(shop.merchant_id, "transfers.reverse", {"transfer_id": transfer.id})


def _invoice(draw: Random, shop: Shop, _shops: list[Shop]) -> Visit:
    customer_id, payment_method_id = draw.choice(shop.customers)
    lines = [
        {"description": f"item {n}", "quantity": 1, "amount_minor": draw.randint(500, 9_000)}
        for n in range(draw.randint(1, 3))
    ]
    invoice = yield Request(
        shop.merchant_id, "invoices.create", {"customer_id": customer_id, "currency": shop.currency, "lines": lines}
    )
    yield Request(shop.merchant_id, "invoices.finalize", {"invoice_id": invoice.id})
    end = draw.random()
    if end < 0.15:
        yield Request(shop.merchant_id, "invoices.void", {"invoice_id": invoice.id})
        return
    if end < 0.35:
        yield Request(
            shop.merchant_id,
            "credit_notes.create",
            {"invoice_id": invoice.id, "amount_minor": 250, "reason": "order_change"},
        )
    yield Request(shop.merchant_id, "invoices.pay", {"invoice_id": invoice.id, "payment_method_id": payment_method_id})


def _subscription(draw: Random, shop: Shop, _shops: list[Shop]) -> Visit:
    customer_id, payment_method_id = draw.choice(shop.customers)
    subscription = yield Request(
        shop.merchant_id,
        "subscriptions.create",
        {"customer_id": customer_id, "price_id": shop.price_id, "payment_method_id": payment_method_id},
    )
    if draw.random() < 0.5:
        yield Request(shop.merchant_id, "subscriptions.cancel", {"subscription_id": subscription.id})


_KINDS = {
    _payment: 70,
    _authorization: 10,
    _top_up: 5,
    _transfer: 5,
    _payout: 4,
    _invoice: 3,
    _subscription: 3,
}
