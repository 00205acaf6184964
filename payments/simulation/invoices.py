"""Invoices: those of subscriptions, and those that merchants write by hand; how each was settled, or was not.

What is open, or uncollectible, is still owed: it stands in invoice_receivable of the merchant's book.
"""

from dataclasses import dataclass, fields

import numpy as np

from payments.simulation.aftermath import REFUNDED, Refunds, Sales
from payments.simulation.arrays import Flags, Ints, expand, pick
from payments.simulation.plan import DAY, HOUR, Plan
from payments.simulation.population import Population
from payments.simulation.postings import Leg, Postings
from payments.simulation.purchases import ORDINARY, Charges, Intents, in_minor_units
from payments.simulation.streams import Streams
from payments.simulation.subscriptions import TRIAL, Subscribed
from payments.simulation.world import CATEGORIES

INVOICE_STATUSES = ("draft", "open", "paid", "uncollectible", "void")
DRAFT, OPEN, PAID, UNCOLLECTIBLE, VOID = range(len(INVOICE_STATUSES))
BILLING_REASONS = ("subscription_create", "subscription_cycle", "manual")
_FIRST, _CYCLE, _MANUAL = range(len(BILLING_REASONS))
SUBSCRIPTION_STATUSES = ("incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid")
INCOMPLETE, INCOMPLETE_EXPIRED, TRIALING, ACTIVE, PAST_DUE, CANCELED, UNPAID = range(len(SUBSCRIPTION_STATUSES))
DESCRIPTIONS = ("Subscription", "Trial period", "Consulting", "Training", "Materials")
_PLAN_LINE, _TRIAL_LINE, _FIRST_MANUAL_LINE = range(3)
CREDIT_REASONS = ("order_change", "product_unsatisfactory", "duplicate")
_EXPIRES_AFTER, _UNPAID_AFTER, _CANCELED_AFTER = 23 * HOUR, 7 * DAY, 21 * DAY
_MANUAL_SHARE, _CREDITED_SHARE, _UNPAID_MANUAL_SHARE = 0.04, 0.10, 0.004


@dataclass(frozen=True)
class Invoices:
    """One row an invoice, in order of time; -1 stands for no subscription, no intent and no moment.

    `ended` is when it was made void or uncollectible; `attempts` counts the payments that were tried.
    """

    customer: Ints
    subscription: Ints
    intent: Ints
    money: Ints
    status: Ints
    reason: Ints
    subtotal: Ints
    discount: Ints
    paid: Ints
    credited: Ints
    created: Ints
    finalized: Ints
    paid_at: Ints
    ended: Ints
    tried: Ints
    attempts: Ints

    @property
    def rest(self) -> Ints:
        """What is neither paid nor credited."""
        return self.subtotal - self.discount - self.paid - self.credited


@dataclass(frozen=True)
class Lines:
    """One row a line of an invoice; `subscription` is -1 unless it is for a period of one."""

    invoice: Ints
    subscription: Ints
    description: Ints
    quantity: Ints
    amount: Ints
    starts: Ints
    ends: Ints


@dataclass(frozen=True)
class CreditNotes:
    """One row a credit note, in order of time; `refund` is -1 where it reduces what is due."""

    invoice: Ints
    refund: Ints
    amount: Ints
    reason: Ints
    created: Ints


@dataclass(frozen=True)
class SubscriptionEndings:
    """How each subscription stands when the history ends; -1 for no moment."""

    status: Ints
    canceled: Ints
    updated: Ints
    version: Ints
    period_starts: Ints
    period_ends: Ints


@dataclass(frozen=True)
class Billing:
    """Subscriptions and invoices."""

    subscribed: Subscribed
    endings: SubscriptionEndings
    invoices: Invoices
    lines: Lines
    credit_notes: CreditNotes

    @property
    def still_wanted(self) -> Ints:
        """The intents that are kept open, because their invoice is."""
        is_owed = np.isin(self.invoices.status, [OPEN, UNCOLLECTIBLE]) & (self.invoices.intent >= 0)
        return self.invoices.intent[is_owed]


@dataclass(frozen=True)
class Payments:
    """What invoices refer to."""

    population: Population
    customer_created: Ints
    intents: Intents
    charges: Charges
    sales: Sales
    refunds: Refunds


def bill(streams: Streams, plan: Plan, subscribed: Subscribed, payments: Payments) -> Billing:
    """Write the invoices of a history."""
    succeeded = np.full(len(payments.intents.created), -1, np.int64)
    paid = np.flatnonzero(payments.sales.is_paid)
    succeeded[payments.charges.intent[paid]] = paid
    endings, cycles = _subscription_invoices(streams, plan, subscribed, payments, succeeded)
    trials = _trial_invoices(subscribed, payments)
    by_hand = _manual_invoices(streams, plan, subscribed, payments, succeeded)
    unpaid = _unpaid_manual_invoices(streams, plan, payments)
    parts = [cycles, trials, by_hand, unpaid]
    invoices = Invoices(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Invoices)})
    in_time = np.lexsort((invoices.customer, invoices.created))
    number = np.concatenate([subscribed.cycles.number, np.full(len(invoices.created) - len(cycles.created), -1)])
    invoices = Invoices(**{f.name: getattr(invoices, f.name)[in_time] for f in fields(Invoices)})
    notes = _credit_notes(streams, invoices, payments, succeeded)
    return Billing(subscribed, endings, invoices, _lines(streams, subscribed, invoices, number[in_time]), notes)


def _nothing(count: int) -> Ints:
    return np.zeros(count, np.int64)


def _no(count: int) -> Ints:
    return np.full(count, -1, np.int64)


def _subscription_invoices(
    streams: Streams, plan: Plan, subscribed: Subscribed, payments: Payments, succeeded: Ints
) -> tuple[SubscriptionEndings, Invoices]:
    """Return how subscriptions stand, and the invoice of each month, in the order of the cycles."""
    generator, end = streams.stream("billing"), plan.end_moment
    subscriptions, cycles = subscribed.subscriptions, subscribed.cycles
    count, charges = len(subscriptions.customer), payments.charges
    charge = succeeded[cycles.intent]
    is_paid = charge >= 0
    attempts = np.bincount(charges.intent, minlength=len(succeeded))[cycles.intent]
    tried = payments.intents.created.copy()
    np.maximum.at(tried, charges.intent, charges.created)
    tried = tried[cycles.intent]

    # The last month decides; only it can have failed.
    last = np.maximum(subscriptions.cycles - 1, 0)
    rows = np.arange(count)
    failed_at = _no(count)
    failed_at[cycles.subscription[~is_paid]] = tried[~is_paid]
    has_failed, is_first = failed_at >= 0, subscriptions.cycles == 1
    age = end - failed_at
    begins, next_begins = subscriptions.begins(rows, last), subscriptions.begins(rows, last + 1)
    gives_up = generator.random(count) < 0.6
    is_trying = subscriptions.cycles == 0
    status = np.where(is_trying, TRIALING, ACTIVE)
    status = np.where(~is_trying & ~has_failed & subscriptions.is_ending & (next_begins < end), CANCELED, status)
    late = np.where(age < _UNPAID_AFTER, PAST_DUE, np.where((age < _CANCELED_AFTER) | ~gives_up, UNPAID, CANCELED))
    early = np.where(end - subscriptions.created > _EXPIRES_AFTER + 3 * DAY, INCOMPLETE_EXPIRED, INCOMPLETE)
    status = np.where(has_failed, np.where(is_first & ~subscriptions.has_trial, early, late), status)
    canceled = np.where(status == CANCELED, np.where(has_failed, failed_at + _CANCELED_AFTER, next_begins), -1)
    canceled = np.where(status == INCOMPLETE_EXPIRED, failed_at + _EXPIRES_AFTER, canceled)
    # A card that is tried for long after the first try can still be failing when the history ends.
    is_cut = canceled >= end
    status = np.where(is_cut, np.where(status == INCOMPLETE_EXPIRED, INCOMPLETE, PAST_DUE), status)
    canceled = np.where(is_cut, -1, canceled)
    billed_at = np.where(is_trying, subscriptions.created, np.where(has_failed, failed_at, begins))
    endings = SubscriptionEndings(
        status=status,
        canceled=canceled,
        updated=np.maximum(canceled, billed_at),
        version=1 + subscriptions.cycles + (canceled >= 0),
        period_starts=np.where(is_trying, subscriptions.created, begins),
        period_ends=np.where(is_trying, subscriptions.created + TRIAL, next_begins),
    )

    owner = cycles.subscription
    ending = np.where(status[owner] == INCOMPLETE_EXPIRED, VOID, OPEN)
    ending = np.where((status[owner] == CANCELED) & (generator.random(len(owner)) < 0.6), UNCOLLECTIBLE, ending)
    invoice_status = np.where(is_paid, PAID, ending)
    created = payments.intents.created[cycles.intent]
    return endings, Invoices(
        customer=subscriptions.customer[owner],
        subscription=owner,
        intent=cycles.intent,
        money=payments.intents.money[cycles.intent],
        status=invoice_status,
        reason=np.where((cycles.number == 0) & ~subscriptions.has_trial[owner], _FIRST, _CYCLE),
        subtotal=cycles.subtotal,
        discount=cycles.discount,
        paid=np.where(is_paid, cycles.subtotal - cycles.discount, 0),
        credited=_nothing(len(owner)),
        created=created,
        finalized=created,
        paid_at=np.where(is_paid, payments.sales.captured[charge], -1),
        ended=np.where(np.isin(invoice_status, [VOID, UNCOLLECTIBLE]), canceled[owner], -1),
        tried=tried,
        attempts=attempts,
    )


def _trial_invoices(subscribed: Subscribed, payments: Payments) -> Invoices:
    """Return the invoices over nothing with which trials begin."""
    subscriptions = subscribed.subscriptions
    rows = np.flatnonzero(subscriptions.has_trial)
    count, created = len(rows), subscriptions.created[rows]
    return Invoices(
        customer=subscriptions.customer[rows],
        subscription=rows,
        intent=_no(count),
        money=payments.population.customers.money[subscriptions.customer[rows]],
        status=np.full(count, PAID),
        reason=np.full(count, _FIRST),
        subtotal=_nothing(count),
        discount=_nothing(count),
        paid=_nothing(count),
        credited=_nothing(count),
        created=created,
        finalized=created,
        paid_at=created,
        ended=_no(count),
        tried=_no(count),
        attempts=_nothing(count),
    )


def _writes_invoices(population: Population, customer: Ints) -> Flags:
    category = population.merchants.category[population.customers.merchant[customer]]
    by_hand: Flags = np.array([entry.curve == "business" or entry.mcc == "4722" for entry in CATEGORIES])[category]
    return by_hand


def _manual_invoices(
    streams: Streams, plan: Plan, subscribed: Subscribed, payments: Payments, succeeded: Ints
) -> Invoices:
    """Return invoices that were paid by ordinary payments, which they precede; of some a part was credited first."""
    generator, intents = streams.stream("manual invoices"), payments.intents
    is_fit = (succeeded >= 0) & _writes_invoices(payments.population, intents.customer)
    is_fit &= payments.charges.kind[succeeded] == ORDINARY
    is_fit &= payments.sales.captured_amount[succeeded] == intents.amount
    is_fit[subscribed.cycles.intent] = False
    rows = np.flatnonzero(is_fit & (generator.random(len(is_fit)) < _MANUAL_SHARE))
    count, charge = len(rows), succeeded[rows]
    earliest = np.maximum(payments.customer_created[intents.customer[rows]], plan.start_moment)
    created = intents.created[rows] - (generator.uniform(0.5, 20, count) * DAY).astype(np.int64)
    created = np.minimum(np.maximum(created, earliest), intents.created[rows])
    paid = payments.sales.captured_amount[charge]
    is_credited = (generator.random(count) < _CREDITED_SHARE) & (intents.created[rows] - created > HOUR)
    credited = np.where(is_credited, np.maximum((paid * generator.uniform(0.05, 0.4, count)).astype(np.int64), 1), 0)
    attempts = np.bincount(payments.charges.intent, minlength=len(succeeded))[rows]
    return Invoices(
        customer=intents.customer[rows],
        subscription=_no(count),
        intent=rows,
        money=intents.money[rows],
        status=np.full(count, PAID),
        reason=np.full(count, _MANUAL),
        subtotal=paid + credited,
        discount=_nothing(count),
        paid=paid,
        credited=credited,
        created=created,
        finalized=created,
        paid_at=payments.sales.captured[charge],
        ended=_no(count),
        tried=payments.sales.captured[charge],
        attempts=attempts,
    )


def _unpaid_manual_invoices(streams: Streams, plan: Plan, payments: Payments) -> Invoices:
    """Return invoices that nobody paid: drafts, open, void and uncollectible ones, and some credited in whole."""
    generator, population = streams.stream("unpaid invoices"), payments.population
    candidates = np.flatnonzero(population.customers.joined_before)
    candidates = candidates[_writes_invoices(population, candidates)]
    wanted = round(plan.transactions * _UNPAID_MANUAL_SHARE)
    customer = candidates[generator.integers(0, max(1, len(candidates)), wanted if len(candidates) else 0)]
    count, length = len(customer), plan.days * DAY
    fate = pick(generator, np.array([0.12, 0.40, 0.16, 0.16, 0.16]), count)
    status = np.array([DRAFT, OPEN, PAID, UNCOLLECTIBLE, VOID])[fate]
    # What is a draft or open is young, what has ended had the time to.
    is_young = np.isin(status, [DRAFT, OPEN])
    reach = np.where(is_young, np.minimum(25 * DAY, length), length)
    created = plan.end_moment - 1 - (generator.random(count) * (reach - 1)).astype(np.int64)
    ended = created + ((plan.end_moment - created) * generator.uniform(0.2, 0.95, count)).astype(np.int64)
    category = population.merchants.category[population.customers.merchant[customer]]
    dollars = np.array([entry.median_dollars for entry in CATEGORIES])[category] * generator.lognormal(0.8, 0.6, count)
    money = population.customers.money[customer]
    subtotal = in_minor_units(dollars, money, np.zeros(count, bool))
    is_reduced = (status == OPEN) & (generator.random(count) < 0.2) & (subtotal > 1)
    credited = np.where(status == PAID, subtotal, np.where(is_reduced, np.maximum(subtotal // 4, 1), 0))
    return Invoices(
        customer=customer,
        subscription=_no(count),
        intent=_no(count),
        money=money,
        status=status,
        reason=np.full(count, _MANUAL),
        subtotal=subtotal,
        discount=_nothing(count),
        paid=_nothing(count),
        credited=credited,
        created=created,
        finalized=np.where(status == DRAFT, -1, created),
        paid_at=np.where(status == PAID, ended, -1),
        ended=np.where(np.isin(status, [VOID, UNCOLLECTIBLE]), ended, -1),
        tried=_no(count),
        attempts=_nothing(count),
    )


def _lines(streams: Streams, subscribed: Subscribed, invoices: Invoices, number: Ints) -> Lines:
    """Return one line of a month or a trial, and one to three of an invoice that was written by hand."""
    generator, count = streams.stream("invoice lines"), len(invoices.created)
    subscriptions, owner = subscribed.subscriptions, invoices.subscription
    is_manual, is_trial = owner < 0, (owner >= 0) & (number < 0)
    parts = np.where(is_manual, 1 + pick(generator, np.array([0.6, 0.25, 0.15]), count), 1)
    parts = np.minimum(parts, np.maximum(invoices.subtotal, 1))
    invoice, place = expand(parts)
    share = invoices.subtotal[invoice] // parts[invoice]
    rest = invoices.subtotal[invoice] - share * (parts[invoice] - 1)
    month = np.maximum(number, 0)
    # Rows without a subscription take any one's dates here, and their own moment below.
    known = np.maximum(owner, 0)
    if len(subscriptions.customer):
        starts, ends = subscriptions.begins(known, month), subscriptions.begins(known, month + 1)
        quantity = subscriptions.quantity[known]
    else:
        starts, ends, quantity = invoices.created, invoices.created, np.ones(count, np.int64)
    starts = np.where(is_manual | is_trial, invoices.created, starts)
    ends = np.where(is_manual, invoices.created, np.where(is_trial, invoices.created + TRIAL, ends))
    description = np.where(is_manual, _FIRST_MANUAL_LINE, np.where(is_trial, _TRIAL_LINE, _PLAN_LINE))
    return Lines(
        invoice=invoice,
        subscription=owner[invoice],
        description=description[invoice] + place,
        quantity=np.where(is_manual, 1, quantity)[invoice],
        amount=np.where(place == parts[invoice] - 1, rest, share),
        starts=starts[invoice],
        ends=ends[invoice],
    )


def _credit_notes(streams: Streams, invoices: Invoices, payments: Payments, succeeded: Ints) -> CreditNotes:
    """Return a note of each credit, and of some refunds of what was paid."""
    generator = streams.stream("credit notes")
    reduced = np.flatnonzero(invoices.credited > 0)
    until = np.where(invoices.paid[reduced] > 0, invoices.tried[reduced], invoices.paid_at[reduced])
    # One that is open was reduced as soon as it was written.
    until = np.where(until < 0, invoices.created[reduced], until)
    created = invoices.created[reduced] + ((until - invoices.created[reduced]) * 0.5).astype(np.int64)
    is_whole = (invoices.paid[reduced] == 0) & (invoices.status[reduced] == PAID)
    created = np.where(is_whole, until, created)

    by_charge = np.full(len(payments.sales.amount), -1, np.int64)
    is_paid = np.flatnonzero((invoices.paid > 0) & (invoices.subscription < 0))
    by_charge[succeeded[invoices.intent[is_paid]]] = is_paid
    refund = np.flatnonzero((payments.refunds.status == REFUNDED) & (by_charge[payments.refunds.charge] >= 0))
    notes = CreditNotes(
        invoice=np.concatenate([reduced, by_charge[payments.refunds.charge[refund]]]),
        refund=np.concatenate([_no(len(reduced)), refund]),
        amount=np.concatenate([invoices.credited[reduced], payments.refunds.amount[refund]]),
        reason=generator.integers(0, len(CREDIT_REASONS), len(reduced) + len(refund)),
        created=np.concatenate([created, payments.refunds.created[refund]]),
    )
    in_time = np.argsort(notes.created, kind="stable")
    return CreditNotes(**{f.name: getattr(notes, f.name)[in_time] for f in fields(CreditNotes)})


def invoice_postings(population: Population, billing: Billing) -> list[Postings]:
    """Return what is owed by invoices, and how it was settled: by payment, by credit, or by making them void."""
    invoices, notes = billing.invoices, billing.credit_notes
    merchant = population.customers.merchant[invoices.customer]
    total = invoices.subtotal - invoices.discount
    owed = np.flatnonzero((invoices.finalized >= 0) & (total > 0))
    settled = np.flatnonzero((invoices.paid > 0) | ((invoices.status == VOID) & (invoices.rest > 0)))
    moment = np.where(invoices.paid > 0, invoices.paid_at, invoices.ended)
    amount = np.where(invoices.paid > 0, invoices.paid, invoices.rest)
    credited = np.flatnonzero(notes.refund < 0)

    def settle(space: str, source: Ints, rows: Ints, values: tuple[Ints, Ints]) -> Postings:
        legs = (
            Leg("invoice_clearing", True, invoices.money[rows], values[0]),
            Leg("invoice_receivable", False, invoices.money[rows], values[0]),
        )
        return Postings("invoice_settled", space, merchant[rows], source, values[1], legs)

    return [
        Postings(
            "invoice",
            "in",
            merchant[owed],
            owed,
            invoices.finalized[owed],
            (
                Leg("invoice_receivable", True, invoices.money[owed], total[owed]),
                Leg("invoice_clearing", False, invoices.money[owed], total[owed]),
            ),
        ),
        settle("in", settled, settled, (amount[settled], moment[settled])),
        settle("cn", credited, notes.invoice[credited], (notes.amount[credited], notes.created[credited])),
    ]
