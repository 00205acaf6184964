"""The whole history as arrays: population, intents, charges and what follows from them. Pure: no store is touched."""

from dataclasses import dataclass, replace

import numpy as np

from payments.simulation.aftermath import (
    REFUND_FAILED,
    Disputes,
    Refunds,
    Sales,
    aftermath,
    anomaly_scores,
    fees_of,
)
from payments.simulation.arrays import Flags, Ints
from payments.simulation.authorizations import HELD, POSTED, Authorized, authorize
from payments.simulation.books import Settled, payment_movements, payment_postings, settle
from payments.simulation.checkout import (
    Reviews,
    Sessions,
    SetupIntents,
    Warnings,
    checkout_sessions,
    early_warnings,
    reviews,
    setup_intents,
)
from payments.simulation.fraud import card_testing, fraud_budget, stolen_cards
from payments.simulation.invoices import Billing, Payments, bill, invoice_postings
from payments.simulation.movements import BalanceTransactions, move_all
from payments.simulation.plan import DAY, SECOND, Plan
from payments.simulation.platforms import application_fees, platforms_of
from payments.simulation.population import Population, build_population
from payments.simulation.postings import Holds, Ledger, post_all
from payments.simulation.purchases import (
    FAILED,
    SUCCEEDED,
    Charges,
    Intents,
    abandoned_intents,
    concatenate,
    ordinary_payments,
    take,
)
from payments.simulation.streams import Streams
from payments.simulation.subscriptions import Subscribed, subscribe
from payments.simulation.treasury import (
    Treasury,
    adjust,
    paid_out_by,
    run_treasury,
    treasury_movements,
    treasury_postings,
)

INTENT_STATUSES = ("succeeded", "processing", "requires_payment_method", "canceled", "requires_capture")
INTENT_SUCCEEDED, PROCESSING, NEEDS_METHOD, CANCELED, NEEDS_CAPTURE = range(len(INTENT_STATUSES))
CANCELLATION_REASONS = ("abandoned", "requested_by_customer", "expired")
_GIVEN_UP_AFTER = 3 * DAY


@dataclass(frozen=True)
class IntentEndings:
    """How far each intent has come: amounts in minor units; `reason` counts in CANCELLATION_REASONS, -1 for none."""

    status: Ints
    received: Ints
    capturable: Ints
    reason: Ints
    updated: Ints
    version: Ints


@dataclass(frozen=True)
class Business:
    """A history. Intents, charges, refunds and disputes are in order of time; the other arrays run beside them."""

    plan: Plan
    population: Population
    intents: Intents
    is_manual: Flags
    endings: IntentEndings
    platform: Ints
    application_fee: Ints
    charges: Charges
    sales: Sales
    charge_customer: Ints
    charge_refunded: Ints
    charge_updated: Ints
    charge_version: Ints
    charge_score: Ints
    refunds: Refunds
    disputes: Disputes
    sessions: Sessions
    setups: SetupIntents
    reviews: Reviews
    warnings: Warnings
    settled: Settled
    holds: Holds
    billing: Billing
    treasury: Treasury
    balance: BalanceTransactions
    paid_out_by: Ints
    ledger: Ledger
    customer_created: Ints
    method_created: Ints


def build_business(plan: Plan) -> Business:
    """Draw the history of a plan: exactly `plan.transactions` charges."""
    streams = Streams(plan.seed)
    population, intents, drawn, subscribed = _payments(streams, plan)
    authorized = authorize(streams, plan, population, intents, drawn)
    charges, holds = authorized.charges, authorized.holds
    platform, application_fee = _platform_shares(population, intents)
    sales = _sales(population, intents, authorized, application_fee)
    refunds, disputes = aftermath(streams, plan, charges, sales)
    settled = settle(plan, sales)
    application = platform[sales.merchant]
    refunded, updated, version = _charge_endings(charges, holds, refunds, disputes)
    customer_created, method_created = _first_seen(streams, plan, population, intents, charges)
    payments = Payments(population, customer_created, intents, charges, sales, refunds)
    billing = bill(
        streams,
        plan,
        subscribed,
        payments,
    )
    setups, scores = setup_intents(streams, plan, payments, method_created), anomaly_scores(streams, charges)
    movements = payment_movements(sales, application, refunds, disputes)
    postings = payment_postings(sales, application, settled, refunds, disputes)
    postings += invoice_postings(population, billing)
    adjustments = adjust(plan, population.merchants)
    treasury = run_treasury(streams, plan, population.merchants, movements, adjustments)
    postings += treasury_postings(treasury, sum(len(group.posted) for group in postings))
    balance = move_all(movements + treasury_movements(treasury))
    return Business(
        plan=plan,
        population=population,
        intents=intents,
        is_manual=authorized.is_manual,
        endings=_intent_endings(plan, intents, authorized, billing.still_wanted),
        platform=platform,
        application_fee=application_fee,
        charges=charges,
        sales=sales,
        charge_customer=intents.customer[charges.intent],
        charge_refunded=refunded,
        charge_updated=updated,
        charge_version=version,
        charge_score=scores,
        refunds=refunds,
        disputes=disputes,
        sessions=checkout_sessions(streams, plan, payments, subscribed.cycles, setups),
        setups=setups,
        reviews=reviews(streams, plan, payments, scores),
        warnings=early_warnings(streams, plan, payments, disputes, refunded),
        settled=settled,
        holds=holds,
        billing=billing,
        treasury=treasury,
        balance=balance,
        paid_out_by=paid_out_by(balance, treasury.payouts),
        ledger=post_all(postings, holds),
        customer_created=customer_created,
        method_created=method_created,
    )


def _payments(streams: Streams, plan: Plan) -> tuple[Population, Intents, Charges, Subscribed]:
    """Draw ordinary payments, subscriptions and fraud, and put the payments in order of time."""
    population = build_population(streams, plan)
    budget = fraud_budget(plan.transactions)
    ordinary = ordinary_payments(streams, plan, population)
    kept = plan.transactions - budget.total
    all_intents, all_charges, subscribed = subscribe(streams, plan, population, ordinary, kept)
    frauds = []
    if budget.total:
        known = take(all_charges, np.arange(kept))
        frauds = [
            stolen_cards(streams, plan, population, all_intents, known),
            card_testing(streams, plan, population),
        ]
        population = frauds[-1].population
    fraud_count = sum(len(fraud.charges.intent) for fraud in frauds)
    charges = take(all_charges, np.arange(plan.transactions - fraud_count))
    intents = take(all_intents, np.arange(int(charges.intent.max()) + 1))
    intents = concatenate([intents, abandoned_intents(streams, intents)])
    for fraud in frauds:
        moved = replace(fraud.charges, intent=fraud.charges.intent + len(intents.created))
        charges, intents = concatenate([charges, moved]), concatenate([intents, fraud.intents])

    in_time = np.argsort(intents.created, kind="stable")
    place = np.empty_like(in_time)
    place[in_time] = np.arange(len(in_time))
    charges = replace(charges, intent=place[charges.intent])
    cycles = replace(subscribed.cycles, intent=place[subscribed.cycles.intent])
    in_order = take(charges, np.argsort(charges.created, kind="stable"))
    return population, take(intents, in_time), in_order, replace(subscribed, cycles=cycles)


def _platform_shares(population: Population, intents: Intents) -> tuple[Ints, Ints]:
    """Return the platform of each merchant, and what it takes of each intent."""
    merchants = population.merchants
    platform, merchant = platforms_of(merchants), population.customers.merchant[intents.customer]
    fee = fees_of(intents.amount, merchants.fee_basis_points[merchant], merchants.fee_fixed[merchant])
    return platform, application_fees(intents.amount, fee, platform[merchant])


def _sales(population: Population, intents: Intents, authorized: Authorized, application_fee: Ints) -> Sales:
    """Return what each charge is worth to whom."""
    charges, merchants = authorized.charges, population.merchants
    merchant = population.customers.merchant[intents.customer][charges.intent]
    is_paid = charges.status == SUCCEEDED
    fee = fees_of(authorized.captured_amount, merchants.fee_basis_points[merchant], merchants.fee_fixed[merchant])
    return Sales(
        merchant=merchant,
        category=merchants.category[merchant],
        money=intents.money[charges.intent],
        amount=intents.amount[charges.intent],
        captured_amount=authorized.captured_amount,
        fee=np.where(is_paid, fee, 0),
        application_fee=np.where(is_paid, application_fee[charges.intent], 0),
        created=charges.created,
        captured=authorized.captured,
        is_paid=is_paid,
    )


def _charge_endings(charges: Charges, holds: Holds, refunds: Refunds, disputes: Disputes) -> tuple[Ints, Ints, Ints]:
    """Return what is refunded of each charge, its last change, and its version."""
    refunded = np.zeros(len(charges.created), np.int64)
    is_live = refunds.status != REFUND_FAILED  # a pending refund is taken from the charge already
    np.add.at(refunded, refunds.charge[is_live], refunds.amount[is_live])
    updated, version = charges.created.copy(), np.ones(len(charges.created), np.int64)
    resolved = holds.status != HELD
    for charge, moment in (
        (holds.charge[resolved], holds.resolved[resolved]),
        (refunds.charge, refunds.created),
        (refunds.charge[~is_live], refunds.failed[~is_live]),
        (disputes.charge, disputes.created),
    ):
        np.maximum.at(updated, charge, moment)
        np.add.at(version, charge, 1)
    return refunded, updated, version


def _intent_endings(plan: Plan, intents: Intents, authorized: Authorized, still_wanted: Ints) -> IntentEndings:
    charges, holds, count = authorized.charges, authorized.holds, len(intents.created)
    best = np.zeros(count, np.int64)
    np.maximum.at(best, charges.intent, charges.status)
    last = intents.created.copy()
    np.maximum.at(last, charges.intent, charges.created)
    is_given_up = (best == FAILED) & (last + _GIVEN_UP_AFTER < plan.end_moment)
    is_given_up[still_wanted] = False
    status = np.array([NEEDS_METHOD, INTENT_SUCCEEDED, PROCESSING])[best]
    status = np.where(is_given_up, CANCELED, status)
    reason = np.where(is_given_up, CANCELLATION_REASONS.index("abandoned"), -1)
    updated = np.where(is_given_up, last + _GIVEN_UP_AFTER, last)

    held = charges.intent[holds.charge]
    status[held] = np.array([NEEDS_CAPTURE, INTENT_SUCCEEDED, CANCELED, CANCELED])[holds.status]
    reason[held] = np.array([-1, -1, 1, 2])[holds.status]
    updated[held] = np.where(holds.status == HELD, holds.created, holds.resolved)
    received, captures = np.zeros(count, np.int64), np.zeros(count, np.int64)
    np.add.at(received, charges.intent, authorized.captured_amount)
    captures[held[holds.status == POSTED]] = 1
    return IntentEndings(
        status=status,
        received=received,
        capturable=np.where(status == NEEDS_CAPTURE, intents.amount, 0),
        reason=reason,
        updated=updated,
        version=1 + np.bincount(charges.intent, minlength=count) + (status == CANCELED) + captures,
    )


def _first_seen(
    streams: Streams, plan: Plan, population: Population, intents: Intents, charges: Charges
) -> tuple[Ints, Ints]:
    """Return when each customer and each payment method was created: never after its first use."""
    generator = streams.stream("first seen")
    customers, methods = population.customers, population.methods
    count = len(customers.merchant)
    minute = 60 * SECOND
    first_intent = np.full(count, plan.end_moment)
    np.minimum.at(first_intent, intents.customer, intents.created)
    opened = population.merchants.created[customers.merchant]
    years = (generator.random(count) * 700 * DAY).astype(np.int64)
    before = np.maximum(plan.start_moment - years, opened + DAY)
    just_before = first_intent - generator.integers(minute, 30 * minute, count)
    never_bought = first_intent == plan.end_moment
    created = np.where(customers.joined_before | never_bought, before, just_before)

    first_use = np.full(len(methods.customer), plan.end_moment)
    np.minimum.at(first_use, charges.method, charges.created)
    chosen = np.flatnonzero(intents.method >= 0)
    np.minimum.at(first_use, intents.method[chosen], intents.created[chosen])
    stored = created[methods.customer] + (generator.random(len(first_use)) * 200 * DAY).astype(np.int64)
    stored = np.minimum(stored, first_use - generator.integers(5 * SECOND, minute, len(first_use)))
    return created, np.maximum(created[methods.customer], stored)
