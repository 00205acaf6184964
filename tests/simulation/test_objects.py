"""The objects around payments in a drawn history: authorizations, balances, billing, checkout. No store is needed."""

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from payments.simulation.aftermath import FRAUDULENT
from payments.simulation.authorizations import EXPIRED, HELD, HELD_FOR, POSTED, VOIDED
from payments.simulation.business import CANCELED, NEEDS_CAPTURE, Business, build_business
from payments.simulation.invoices import (
    ACTIVE,
    DRAFT,
    INVOICE_STATUSES,
    OPEN,
    PAID,
    PAST_DUE,
    TRIALING,
    UNCOLLECTIBLE,
    UNPAID,
)
from payments.simulation.invoices import CANCELED as SUBSCRIPTION_CANCELED
from payments.simulation.movements import TYPES
from payments.simulation.plan import DAY, Plan
from payments.simulation.postings import CODES, KINDS
from payments.simulation.purchases import FAILED, ORDINARY, PENDING, SUCCEEDED
from payments.simulation.treasury import OPERATORS, PAYOUT_STATUSES, paid_out_by
from payments.simulation.world import AUTHORIZATION_EXPIRED, AUTHORIZATION_VOIDED, MONIES


@pytest.fixture(scope="module")
def business(full_size: bool) -> Business:
    plan = Plan(40_000, 150, 20_260_630, date(2026, 6, 30))
    return build_business(Plan(300_000, 365, plan.seed, plan.end) if full_size else plan)


def held(business: Business, code: str) -> int:
    """What the accounts of a code hold in all books and currencies together, on the credit side."""
    ledger = business.ledger
    rows = ledger.account_code == CODES.index(code)
    return int((ledger.account_credits - ledger.account_debits)[rows].sum())


def test_every_kind_of_posting_and_account_occurs(business: Business) -> None:
    assert set(np.unique(business.ledger.transaction_kind)) == set(range(len(KINDS)))
    assert set(np.unique(business.ledger.account_code)) == set(range(len(CODES)))


def test_authorizations_end_in_every_way_and_some_are_still_held(business: Business) -> None:
    holds, charges, sales = business.holds, business.charges, business.sales
    assert {HELD, POSTED, VOIDED, EXPIRED} == set(holds.status)
    status = charges.status[holds.charge]
    assert (status == np.array([PENDING, SUCCEEDED, FAILED, FAILED])[holds.status]).all()
    failure = charges.failure[holds.charge]
    assert (failure[holds.status == VOIDED] == AUTHORIZATION_VOIDED).all()
    assert (failure[holds.status == EXPIRED] == AUTHORIZATION_EXPIRED).all()
    assert (holds.posted == sales.captured_amount[holds.charge]).all()
    assert (holds.posted <= holds.amount).all()
    captured = holds.status == POSTED
    assert 0.1 < (holds.posted < holds.amount)[captured].mean() < 0.4, "some are captured in part"
    assert (holds.resolved[captured] < holds.created[captured] + HELD_FOR).all()
    assert (holds.resolved[holds.status == EXPIRED] > holds.created[holds.status == EXPIRED] + HELD_FOR).all()
    is_held = holds.status == HELD
    assert (holds.created[is_held] > business.plan.end_moment - HELD_FOR - DAY).all()
    pending = business.ledger.account_debits_pending.sum()
    assert pending == business.ledger.account_credits_pending.sum() == holds.amount[is_held].sum()
    intents = charges.intent[holds.charge]
    assert (business.endings.capturable[intents] == np.where(is_held, holds.amount, 0)).all()
    assert (business.endings.status[intents[is_held]] == NEEDS_CAPTURE).all()
    assert (business.endings.status[intents[np.isin(holds.status, [VOIDED, EXPIRED])]] == CANCELED).all()


def test_an_automatic_payout_is_the_sum_of_what_it_pays_out(business: Business) -> None:
    payouts, balance, owner = business.treasury.payouts, business.balance, business.paid_out_by
    assert 0.8 < payouts.is_automatic.mean() < 1
    linked = np.flatnonzero(owner >= 0)
    total = np.zeros(len(payouts.amount), np.int64)
    np.add.at(total, owner[linked], (balance.amount - balance.fee)[linked])
    assert (total == np.where(payouts.is_automatic, payouts.amount, 0)).all()
    assert (balance.merchant[linked] == payouts.merchant[owner[linked]]).all()
    assert (balance.money[linked] == payouts.money[owner[linked]]).all()
    assert (balance.available[linked] <= payouts.created[owner[linked]]).all()
    assert (payouts.amount > 0).all()
    assert (owner == paid_out_by(balance, payouts)).all()


def test_payouts_are_paid_some_fail_and_what_failed_is_paid_later(business: Business) -> None:
    payouts, balance = business.treasury.payouts, business.balance
    assert set(range(len(PAYOUT_STATUSES))) == set(payouts.status)
    failed = payouts.failed >= 0
    assert 0.002 < failed.mean() < 0.04
    assert (payouts.paid[failed] >= 0).any(), "some fail after they seemed to be paid"
    assert (payouts.failure >= 0).tolist() == failed.tolist()
    came_back = np.flatnonzero(balance.type == TYPES.index("payout_failure"))
    assert len(came_back) == failed.sum()
    old = came_back[balance.created[came_back] < business.plan.end_moment - 30 * DAY]
    assert (business.paid_out_by[old] >= 0).mean() > 0.7
    under_way = payouts.status < 2
    assert held(business, "payout_in_transit") == payouts.amount[under_way].sum() > 0


def test_transfers_and_application_fees_clear_to_zero_over_all_books(business: Business) -> None:
    transfers, sales, platform = business.treasury.transfers, business.sales, business.platform
    ledger, money = business.ledger, business.population.merchants.money
    rows = ledger.account_code == CODES.index("transfer_clearing")
    net = np.zeros(len(MONIES), np.int64)
    np.add.at(net, ledger.account_money[rows], (ledger.account_credits - ledger.account_debits)[rows])
    assert (net == 0).all()
    assert len(np.unique(transfers.merchant)) >= 2
    assert (platform[transfers.destination] == transfers.merchant).all()
    assert (money[transfers.destination] == transfers.money).all()
    assert 0 < (transfers.reversed >= 0).mean() < 0.3
    shared = sales.application_fee > 0
    assert 0.005 < shared.mean() < 0.10
    assert (sales.application_fee + sales.fee <= sales.captured_amount).all()
    assert (platform[sales.merchant[shared]] >= 0).all()


def test_conversions_are_exact_and_round_in_favour_of_liquidity(business: Business) -> None:
    fx = business.treasury.conversions
    assert len(fx.fee) > 10
    for row, rate in enumerate(fx.rate):
        source, target = MONIES[fx.from_money[row]], MONIES[fx.to_money[row]]
        exact = int(fx.from_amount[row]) * rate * Decimal(10) ** (target.exponent - source.exponent)
        assert int(fx.to_amount[row]) <= exact < int(fx.to_amount[row]) + 1
        assert fx.fee[row] * 10_000 >= fx.to_amount[row] * 100 > (fx.fee[row] - 1) * 10_000
    assert (business.population.merchants.money[fx.merchant] == fx.to_money).all()


def test_nobody_spends_what_is_not_there(business: Business) -> None:
    """A payout, transfer or conversion takes from merchant_available no more than it holds."""
    ledger = business.ledger
    kinds = [KINDS.index(kind) for kind in ("payout", "transfer", "fx")]
    spends = np.isin(ledger.transaction_kind[ledger.entry_transaction], kinds) & ledger.entry_is_debit
    spends &= (ledger.account_code == CODES.index("merchant_available"))[ledger.entry_account]
    assert spends.any()
    assert (ledger.entry_balance[spends] >= 0).all()


def test_adjustments_have_a_maker_and_a_checker(business: Business) -> None:
    made = business.treasury.adjustments
    assert len(made.amount) == 2
    assert len(set(OPERATORS)) == 2
    assert (made.decided > made.created).all()
    assert all(len(reason) >= 10 for reason in made.reason)
    assert {-1, 1} == set(np.sign(made.amount).tolist())


def test_subscriptions_are_paid_by_the_payments_of_the_history(business: Business) -> None:
    subscribed = business.billing.subscribed
    subscriptions, cycles, intents = subscribed.subscriptions, subscribed.cycles, business.intents
    assert (intents.amount[cycles.intent] == cycles.subtotal - cycles.discount).all()
    assert (intents.customer[cycles.intent] == subscriptions.customer[cycles.subscription]).all()
    assert (intents.created[cycles.intent] == subscriptions.begins(cycles.subscription, cycles.number)).all()
    assert len(np.unique(cycles.intent)) == len(cycles.intent)
    price = subscribed.catalogue.price_amount[subscriptions.price]
    assert (cycles.subtotal == (price * subscriptions.quantity)[cycles.subscription]).all()
    money = subscribed.catalogue.price_money[subscriptions.price]
    assert (money == business.population.customers.money[subscriptions.customer]).all()
    assert (cycles.discount > 0).any()
    later = np.flatnonzero(cycles.number > 0)
    gap = intents.created[cycles.intent[later]] - subscriptions.begins(
        cycles.subscription[later], cycles.number[later] - 1
    )
    assert set(gap // DAY) <= {28, 29, 30, 31}
    assert (subscriptions.created < business.plan.end_moment).all()
    assert (business.customer_created[subscriptions.customer] <= subscriptions.created).all()


def test_subscriptions_end_as_their_last_payment_did(business: Business) -> None:
    billing = business.billing
    status, cycles = billing.endings.status, billing.subscribed.cycles
    assert {TRIALING, ACTIVE, PAST_DUE, UNPAID, SUBSCRIPTION_CANCELED} <= set(status)
    paid = np.zeros(len(business.intents.created), bool)
    paid[business.charges.intent[business.sales.is_paid]] = True
    failed = np.unique(cycles.subscription[~paid[cycles.intent]])
    assert (status[failed] != ACTIVE).all()
    assert (status == ACTIVE).mean() > 0.4
    last = cycles.number == billing.subscribed.subscriptions.cycles[cycles.subscription] - 1
    assert paid[cycles.intent[~last]].all(), "only the last month can have failed"


def test_invoices_add_up_and_what_is_owed_stands_in_the_books(business: Business) -> None:
    billing, end = business.billing, business.plan.end_moment
    invoices, lines, notes = billing.invoices, billing.lines, billing.credit_notes
    assert set(range(len(INVOICE_STATUSES))) == set(invoices.status)
    total = np.zeros(len(invoices.created), np.int64)
    np.add.at(total, lines.invoice, lines.amount)
    assert (total == invoices.subtotal).all()
    assert (invoices.rest >= 0).all()
    assert (invoices.rest[invoices.status == PAID] == 0).all()
    assert ((invoices.paid_at >= 0) == (invoices.status == PAID)).all()
    assert ((invoices.finalized < 0) == (invoices.status == DRAFT)).all()
    for moment in (invoices.paid_at, invoices.ended, invoices.tried):
        assert ((moment < 0) | (moment >= invoices.created)).all()
        assert (moment < end).all()
    credited = np.zeros(len(invoices.created), np.int64)
    np.add.at(credited, notes.invoice[notes.refund < 0], notes.amount[notes.refund < 0])
    assert (credited == invoices.credited).all()
    assert np.unique(invoices.intent[invoices.intent >= 0], return_counts=True)[1].max() == 1
    assert (notes.refund >= 0).any()
    assert (business.sales.captured_amount[business.refunds.charge[notes.refund[notes.refund >= 0]]] > 0).all()
    owed = np.isin(invoices.status, [OPEN, UNCOLLECTIBLE])
    assert -held(business, "invoice_receivable") == held(business, "invoice_clearing") == invoices.rest[owed].sum() > 0
    wanted = invoices.intent[owed & (invoices.intent >= 0)]
    assert (business.endings.status[wanted] != CANCELED).all(), "an open invoice can still be paid"


def test_visits_end_as_their_payments_did(business: Business) -> None:
    sessions, setups = business.sessions, business.setups
    assert {0, 1, 2} == set(sessions.mode) == set(sessions.status)
    assert (sessions.created < business.plan.end_moment).all()
    with_intent = sessions.intent >= 0
    assert (sessions.created <= business.intents.created[sessions.intent])[with_intent].all()
    received = business.endings.received[sessions.intent]
    is_complete = sessions.status == 1
    assert is_complete[with_intent & (received > 0)].mean() > 0.95
    assert (is_complete & with_intent).sum() < with_intent.sum()
    assert (sessions.amount[~with_intent] == 0).all()
    assert (setups.method[setups.status == 0] >= 0).all()
    assert (setups.method[setups.status > 0] < 0).all()


def test_issuers_warn_after_the_charge_and_before_the_dispute(business: Business) -> None:
    warnings, disputes, sales = business.warnings, business.disputes, business.sales
    assert (business.charges.kind[warnings.charge] != ORDINARY).all()
    assert (warnings.created > sales.captured[warnings.charge]).all()
    disputed = np.full(len(sales.amount), np.iinfo(np.int64).max)
    disputed[disputes.charge] = disputes.created
    assert (warnings.created < disputed[warnings.charge]).all()
    labels = disputes.charge[(disputes.reason == FRAUDULENT) & (business.charges.kind[disputes.charge] != ORDINARY)]
    assert 0.3 < np.isin(labels, warnings.charge).mean() < 0.8


def test_reviews_are_opened_by_rules_and_mostly_approved(business: Business) -> None:
    reviews, charges = business.reviews, business.charges
    assert len(reviews.charge) > 10
    assert (reviews.created > charges.created[reviews.charge]).all()
    assert ((reviews.closed >= 0) == (reviews.reason >= 0)).all()
    is_closed = reviews.closed >= 0
    assert (reviews.closed[is_closed] >= reviews.created[is_closed]).all()
    assert (reviews.reason[is_closed] == 0).mean() > 0.8
    assert (business.charge_score[reviews.charge] > np.median(business.charge_score)).mean() > 0.6


@pytest.mark.parametrize("days", [1, 3, 45])
def test_small_histories_have_sound_books(days: int) -> None:
    small: Any = build_business(Plan(800, days, 5, date(2026, 3, 1)))
    ledger = small.ledger
    assert (ledger.account_debits.sum() - ledger.account_credits.sum()) == 0
    assert ledger.transaction_posted.max() < small.plan.end_moment
    assert small.balance.created.max() < small.plan.end_moment
