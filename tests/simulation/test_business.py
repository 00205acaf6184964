"""The drawn history itself: believable, consistent, and the same for the same seed. No store is needed."""

from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from payments.simulation.aftermath import (
    FRAUDULENT,
    LOST,
    REFUND_FAILED,
    REFUND_PENDING,
    REFUND_REASONS,
    REFUNDED,
    WARNING_CLOSED,
    WON,
    fees_of,
    settlement_moment,
)
from payments.simulation.arrays import Ints, expand, pick, pick_within, running_totals
from payments.simulation.business import Business, build_business
from payments.simulation.columns import CURRENCIES
from payments.simulation.plan import DAY, HOUR, SECOND, Plan
from payments.simulation.population import CITY_COUNTRY
from payments.simulation.postings import CODES, DEBIT_NORMAL, KINDS, PROTECTED
from payments.simulation.purchases import (
    CARD_TESTING,
    FAILED,
    ORDINARY,
    STOLEN_CARD_USE,
    SUCCEEDED,
    month_of,
)
from payments.simulation.streams import Streams
from payments.simulation.tables import Tables
from payments.simulation.world import CATEGORIES, COUNTRIES, EXPIRED_CARD, INSUFFICIENT_FUNDS, TERMINAL
from payments.vault import KeyRing

END = date(2026, 6, 30)
PLAN = Plan(transactions=30_000, days=150, seed=20_260_630, end=END)


@pytest.fixture(scope="module")
def business(full_size: bool) -> Business:
    return build_business(Plan(300_000, 365, PLAN.seed, END) if full_size else PLAN)


def local_hours(business: Business) -> Ints:
    """The hour of each charge on the clock of its merchant's country."""
    offsets = np.array([country.utc_offset_minutes for country in COUNTRIES])
    country = business.population.merchants.country[business.sales.merchant]
    hours: Ints = (business.charges.created + offsets[country] * 60 * SECOND) // HOUR % 24
    return hours


def test_writes_exactly_the_charges_asked_for(business: Business) -> None:
    charges = business.charges
    assert len(charges.created) == business.plan.transactions
    assert charges.created.min() >= business.plan.start_moment
    assert charges.created.max() < business.plan.end_moment
    assert (np.diff(charges.created) >= 0).all()
    days_seen = np.unique(charges.created // DAY)
    assert len(days_seen) == business.plan.days


@pytest.mark.parametrize("transactions", [1, 2, 17, 299, 300, 1_000])
@pytest.mark.parametrize("days", [1, 2, 30])
def test_small_histories_hold_together(transactions: int, days: int, tmp_path: Path) -> None:
    small = build_business(Plan(transactions, days, 3, END))
    assert len(small.charges.created) == transactions
    assert small.charges.created.max() < small.plan.end_moment
    for table in Tables(small).all(KeyRing.load_or_create(tmp_path / "ring.json")):
        assert table.batch(slice(0, table.rows)).num_rows == table.rows


def test_same_seed_same_history_other_seed_another() -> None:
    plan = Plan(3_000, 40, 5, END)
    first, again, other = (Tables(build_business(p)).digest() for p in (plan, plan, Plan(3_000, 40, 6, END)))
    assert first == again
    assert first != other


def test_streams_are_independent_of_each_other() -> None:
    streams = Streams(9)
    assert streams.stream("a").random() == streams.stream("a").random()
    assert streams.stream("a").random() != streams.stream("b").random()


def test_merchant_sizes_follow_a_power_law(business: Business) -> None:
    sizes = np.sort(np.bincount(business.sales.merchant))[::-1]
    assert sizes[: max(1, len(sizes) // 10)].sum() > 0.40 * sizes.sum()
    assert sizes[len(sizes) // 2 :].sum() < 0.20 * sizes.sum()
    ranks = np.arange(1, 21)
    slope = np.polyfit(np.log(ranks), np.log(sizes[:20]), 1)[0]
    assert -1.5 < slope < -0.7


def test_hours_and_weekdays_show_on_the_merchants_clock(business: Business) -> None:
    ordinary = business.charges.kind == ORDINARY
    hours = np.bincount(local_hours(business)[ordinary], minlength=24)
    assert hours[1:6].sum() < 0.15 * hours[10:15].sum()
    assert hours[18] > 3 * hours[4]
    # What looks like night in UTC is no night: the clocks differ.
    utc = np.bincount(business.charges.created // HOUR % 24, minlength=24)
    assert utc.min() > 0.1 * utc.max()

    curve = np.array([entry.curve for entry in CATEGORIES])[business.sales.category]
    weekday = (business.charges.created // DAY + 3) % 7
    for name, is_busier_at_weekends in (("food", True), ("business", False)):
        share = np.isin(weekday[ordinary & (curve == name)], [5, 6]).mean()
        assert (share > 2 / 7) == is_busier_at_weekends, (name, share)


def test_amounts_follow_category_and_currency(business: Business) -> None:
    sales, money = business.sales, np.array(CURRENCIES)[business.sales.money]
    assert {"USD", "EUR", "GBP", "JPY", "KWD"} <= set(money)
    assert (sales.amount > 0).all()
    cycles = business.billing.subscribed.cycles
    at_full_price = ~np.isin(business.charges.intent, cycles.intent[cycles.discount > 0])
    assert (sales.amount[at_full_price & (money == "JPY")] % 10 == 0).all()
    assert (sales.amount[at_full_price & (money == "KWD")] % 5 == 0).all()
    # A typical payment is some tens of dollars in each currency, whatever its minor unit.
    assert 1_000 < np.median(sales.amount[money == "USD"]) < 10_000
    assert 1_000 < np.median(sales.amount[money == "JPY"]) < 20_000
    assert 1_500 < np.median(sales.amount[money == "KWD"]) < 40_000
    # Within a shop, that is: shops of all kinds together are a mixture, and subscriptions have fixed prices.
    is_free = (business.charges.kind == ORDINARY) & ~np.isin(business.charges.intent, cycles.intent)
    shop = np.unique(sales.merchant[is_free] * 16 + sales.money[is_free], return_inverse=True)[1]
    logs = np.log(sales.amount[is_free])
    logs -= (np.bincount(shop, weights=logs) / np.bincount(shop))[shop]
    assert abs(((logs - logs.mean()) ** 3).mean() / logs.std() ** 3) < 0.6, "log-normal: the logarithm has little skew"


def test_declines_have_reasons_and_some_are_tried_again(business: Business) -> None:
    charges = business.charges
    assert ((charges.failure >= 0) == (charges.status == FAILED)).all()
    ordinary = charges.kind == ORDINARY
    assert 0.05 < (charges.status[ordinary] == FAILED).mean() < 0.15
    reasons = np.bincount(charges.failure[ordinary & (charges.failure >= 0)], minlength=9)
    assert reasons[INSUFFICIENT_FUNDS] == reasons.max()

    attempts = np.bincount(charges.intent, minlength=len(business.intents.created))
    successes = np.bincount(charges.intent, weights=charges.status == SUCCEEDED, minlength=len(attempts))
    assert successes.max() == 1
    assert (attempts > 1).sum() > 0.01 * len(attempts)
    assert (attempts == 0).sum() > 0.01 * len(attempts)
    assert attempts.max() <= 4
    # A success ends its intent: nothing is charged after it.
    succeeded_at = np.full(len(attempts), np.iinfo(np.int64).max)
    paid = charges.status == SUCCEEDED
    succeeded_at[charges.intent[paid]] = charges.created[paid]
    assert (charges.created <= succeeded_at[charges.intent]).all()


def test_expired_cards_are_declined_as_expired(business: Business) -> None:
    charges, population = business.charges, business.population
    expiry = population.instruments.expiry_month[population.methods.instrument[charges.method]]
    is_card = population.instruments.kind[population.methods.instrument[charges.method]] != 2
    is_late = is_card & (expiry < month_of(charges.created)) & (charges.kind == ORDINARY)
    assert is_late.sum() > 20
    assert (charges.failure[is_late] == EXPIRED_CARD).mean() > 0.9


def test_customers_have_homes_habits_and_several_cards(business: Business) -> None:
    population, charges = business.population, business.charges
    subjects = population.customers.subject[business.charge_customer]
    online = (charges.kind == ORDINARY) & (charges.device_type != TERMINAL)
    at_home = CITY_COUNTRY[charges.city[online]] == population.subjects.country[subjects[online]]
    assert 0.95 < at_home.mean() < 0.999, "at home, except on a journey"
    own_device = charges.device[online] // 2 == subjects[online]
    assert 0.93 < own_device.mean() < 0.99

    usual = population.customers.methods[business.charge_customer]
    several = np.diff(population.customers.methods)[business.charge_customer] > 1
    assert several.mean() > 0.3
    assert (charges.method == usual)[several & (charges.kind == ORDINARY)].mean() > 0.7

    merchants_of_person = np.bincount(population.customers.subject)
    assert (merchants_of_person > 1).mean() > 0.15, "one person is a customer of several merchants"
    assert merchants_of_person.max() < 40
    per_customer = np.bincount(business.charge_customer[charges.kind == ORDINARY])
    assert np.quantile(per_customer, 0.95) > 4 * max(1.0, float(np.median(per_customer))), "some come far more often"


def test_nobody_acts_before_they_exist(business: Business) -> None:
    charges, population = business.charges, business.population
    assert (business.customer_created[business.intents.customer] <= business.intents.created).all()
    assert (business.method_created[charges.method] <= charges.created).all()
    assert (business.customer_created[population.methods.customer] <= business.method_created).all()
    opened = population.merchants.created[population.customers.merchant]
    assert (opened <= business.customer_created).all()
    assert (population.methods.customer[charges.method] == business.charge_customer).all()
    assert business.customer_created.max() < business.plan.end_moment
    assert business.method_created.max() < business.plan.end_moment


def test_card_testing_is_a_burst_of_small_amounts_over_many_cards(business: Business) -> None:
    charges = business.charges
    rows = np.flatnonzero(charges.kind == CARD_TESTING)
    assert (charges.status[rows] == FAILED).mean() > 0.7
    typical = np.median(business.sales.amount[business.sales.money == CURRENCIES.index("USD")])
    in_dollars = rows[business.sales.money[rows] == CURRENCIES.index("USD")]
    assert (business.sales.amount[in_dollars] < 0.15 * typical).all()
    merchants, counts = np.unique(business.sales.merchant[rows], return_counts=True)
    assert len(merchants) < len(rows) / 10
    largest = rows[business.sales.merchant[rows] == merchants[counts.argmax()]]
    first = largest[charges.device[largest] == charges.device[largest][0]]
    assert len(first) >= 10
    assert np.ptp(charges.created[first]) < 2 * HOUR
    cards = business.population.methods.instrument[charges.method[first]]
    assert len(np.unique(cards)) > 0.9 * len(first)
    assert len(np.unique(business.charge_customer[first])) <= 5


def test_stolen_cards_jump_to_a_far_country_on_a_new_device(business: Business) -> None:
    charges, population = business.charges, business.population
    rows = np.flatnonzero(charges.kind == STOLEN_CARD_USE)
    assert len(rows) >= 100
    home = population.subjects.country[population.customers.subject[business.charge_customer[rows]]]
    assert (CITY_COUNTRY[charges.city[rows]] != home).all()
    ordinary = charges.kind == ORDINARY
    assert not np.isin(charges.device[rows], charges.device[ordinary]).any()
    first_ordinary_use = np.full(len(business.method_created), np.iinfo(np.int64).max)
    np.minimum.at(first_ordinary_use, charges.method[ordinary], charges.created[ordinary])
    assert (first_ordinary_use[charges.method[rows]] < charges.created[rows]).all(), "the card was known before"
    usual = {
        int(shop): np.median(business.sales.amount[ordinary & (business.sales.merchant == shop)])
        for shop in np.unique(business.sales.merchant[rows])
    }
    times = [business.sales.amount[row] / usual[int(business.sales.merchant[row])] for row in rows]
    assert np.median(times) > 2.5, "larger amounts than usual in that shop"


def test_labels_become_known_only_when_the_dispute_arrives(business: Business) -> None:
    charges, disputes = business.charges, business.disputes
    fraud = charges.kind[disputes.charge] != ORDINARY
    assert (disputes.reason[fraud] == FRAUDULENT).all()
    delay = (disputes.created - charges.created[disputes.charge]) / DAY
    labels = disputes.reason == FRAUDULENT
    assert delay[labels].min() >= 5
    assert delay[labels].max() <= 45
    assert (charges.status[disputes.charge] == SUCCEEDED).all()
    assert disputes.created.max() < business.plan.end_moment

    old_enough = (charges.created < business.plan.end_moment - 46 * DAY) & (charges.status == SUCCEEDED)
    labelled = np.isin(np.arange(len(charges.created)), disputes.charge[labels])
    share = labelled[old_enough & (charges.kind != ORDINARY)].mean()
    assert 0.7 < share < 0.95, "some frauds are never disputed"
    assert 0 < (labels & ~fraud).sum() < labels.sum() / 2, "some good payments are"


def test_the_anomaly_score_separates_fraud_only_weakly(business: Business) -> None:
    is_fraud = business.charges.kind != ORDINARY
    ranks = business.charge_score.argsort(kind="stable").argsort() + 1
    positives, negatives = is_fraud.sum(), (~is_fraud).sum()
    area = (ranks[is_fraud].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    assert 0.55 < area < 0.80
    assert business.charge_score.min() >= 0
    assert business.charge_score.max() <= 10_000


def test_refunds_arrive_late_and_stay_within_the_charge(business: Business) -> None:
    refunds, disputes, charges = business.refunds, business.disputes, business.charges
    assert 0.01 < len(refunds.charge) / (charges.status == SUCCEEDED).sum() < 0.10
    assert (charges.status[refunds.charge] == SUCCEEDED).all()
    delay = (refunds.created - charges.created[refunds.charge]) / DAY
    assert delay.min() > 0
    assert 3 < np.median(delay) < 12
    assert delay.max() > 20
    assert refunds.created.max() < business.plan.end_moment
    whole = refunds.amount == business.sales.amount[refunds.charge]
    assert 0.4 < whole.mean() < 0.9
    assert set(np.unique(refunds.reason)) == set(range(len(REFUND_REASONS)))
    done = refunds.status != REFUND_FAILED
    total = np.bincount(refunds.charge[done], weights=refunds.amount[done], minlength=len(charges.created))
    assert (total <= business.sales.captured_amount).all()
    assert {REFUNDED, REFUND_FAILED, REFUND_PENDING} == set(refunds.status)
    assert ((refunds.failed >= 0) == (refunds.status == REFUND_FAILED)).all()
    assert (refunds.settled >= 0)[refunds.status == REFUNDED].all()
    assert (np.maximum(refunds.settled, refunds.failed) < business.plan.end_moment).all()
    open_at_the_end = refunds.status == REFUND_PENDING
    assert (refunds.created[open_at_the_end] > business.plan.end_moment - 5 * DAY).all()

    # Disputes are about what was not refunded before them, and end the refunds.
    live = np.flatnonzero(refunds.status != REFUND_FAILED)
    disputed_at = np.full(len(charges.created), np.iinfo(np.int64).max)
    disputed_at[disputes.charge] = disputes.created
    assert (refunds.created < disputed_at[refunds.charge]).all()
    refunded = np.bincount(refunds.charge[live], weights=refunds.amount[live], minlength=len(charges.created))
    assert (disputes.amount == business.sales.captured_amount[disputes.charge] - refunded[disputes.charge]).all()
    assert (disputes.amount > 0).all()


def test_some_disputes_are_decided(business: Business) -> None:
    disputes = business.disputes
    assert {WON, LOST} <= set(disputes.status)
    is_closed = np.isin(disputes.status, [WON, LOST])
    is_inquiry = disputes.taken < 0
    assert ((disputes.closed >= 0) == is_closed | (disputes.status == WARNING_CLOSED)).all()
    assert ((disputes.closed - disputes.taken)[is_closed] >= 14 * DAY).all()
    assert (disputes.status[is_inquiry] > LOST).all()
    assert (disputes.reason[is_inquiry] != FRAUDULENT).all()
    assert is_inquiry.any()
    assert (disputes.taken[~is_inquiry] > disputes.created[~is_inquiry]).any(), "some inquiries become disputes"
    assert disputes.closed.max() < business.plan.end_moment
    assert (~is_closed).any()


def test_the_ledger_balances_and_running_balances_follow(business: Business) -> None:
    ledger = business.ledger
    signed = np.where(ledger.entry_is_debit, ledger.entry_amount, -ledger.entry_amount)
    transactions = np.zeros(len(ledger.transaction_kind) * 16, np.int64)
    np.add.at(transactions, ledger.entry_transaction * 16 + ledger.account_money[ledger.entry_account], signed)
    assert (transactions == 0).all()
    assert (ledger.entry_amount > 0).all()
    money = ledger.account_money[ledger.entry_account]
    first = np.unique(ledger.entry_transaction, return_index=True)[1]
    is_conversion = ledger.transaction_kind[ledger.entry_transaction] == KINDS.index("fx")
    assert (is_conversion | (money == money[first][ledger.entry_transaction])).all(), "one currency a posting"
    assert (np.diff(ledger.transaction_posted) >= 0).all()

    # What is still owed by the card networks is what was captured and is not settled yet.
    owed = (ledger.account_debits - ledger.account_credits)[ledger.account_code == CODES.index("card_receivable")].sum()
    sales = business.sales
    assert owed == sales.captured_amount.sum() - business.settled.amount.sum()
    recent = sales.is_paid & (settlement_moment(sales.captured) >= business.plan.end_moment)
    assert owed == sales.captured_amount[recent].sum() > 0


def test_accounts_are_within_one_book_and_the_protected_ones_never_below_zero(business: Business) -> None:
    ledger = business.ledger
    assert (
        ledger.transaction_merchant[ledger.entry_transaction] == ledger.account_merchant[ledger.entry_account]
    ).all()
    protected = np.array([code in PROTECTED for code in CODES])[ledger.account_code][ledger.entry_account]
    assert (ledger.entry_balance[protected] >= 0).all()
    debit = np.array([code in DEBIT_NORMAL for code in CODES])[ledger.account_code]
    balance = np.where(debit, 1, -1) * (ledger.account_debits - ledger.account_credits)
    last = np.zeros(len(balance), np.int64)
    last[ledger.entry_account] = ledger.entry_balance  # entries come in order: the last one stays
    assert (last == balance).all()


def test_clearing_accounts_hold_what_is_open(business: Business) -> None:
    ledger, refunds, disputes = business.ledger, business.refunds, business.disputes

    def held(code: str) -> int:
        rows = ledger.account_code == CODES.index(code)
        return int((ledger.account_credits - ledger.account_debits)[rows].sum())

    assert held("refund_clearing") == refunds.amount[refunds.status == REFUND_PENDING].sum() > 0
    is_open = (disputes.taken >= 0) & (disputes.closed < 0)
    assert held("dispute_clearing") == disputes.amount[is_open].sum() > 0
    assert held("transfer_clearing") == 0


@pytest.mark.parametrize(
    ("amount", "basis_points", "fixed", "expected"),
    [
        (10_000, 290, 30, 320),
        (50, 100, 0, 0),  # 0.5 is rounded to the even 0
        (150, 100, 0, 2),  # 1.5 is rounded to the even 2
        (250, 100, 0, 2),  # 2.5 is rounded to the even 2
        (251, 100, 0, 3),
        (20, 290, 30, 20),  # at most the amount
    ],
)
def test_fees_are_rounded_half_even(amount: int, basis_points: int, fixed: int, expected: int) -> None:
    assert fees_of(np.array([amount]), np.array([basis_points]), np.array([fixed])).tolist() == [expected]


def test_running_totals_agree_with_a_loop() -> None:
    generator = np.random.default_rng(1)
    groups, values = generator.integers(0, 7, 500), generator.integers(-50, 50, 500)
    numbers, totals = running_totals(groups, values)
    seen: dict[int, tuple[int, int]] = {}
    for row in range(500):
        number, total = seen.get(int(groups[row]), (0, 0))
        seen[int(groups[row])] = (number + 1, total + int(values[row]))
        assert (numbers[row], totals[row]) == seen[int(groups[row])]


@pytest.mark.parametrize(
    "draw",
    [
        lambda generator: pick(generator, np.array([0.0, 3.0, 0.0, 1.0]), 20_000),
        lambda generator: (
            pick_within(generator, np.array([9.0, 0.0, 3.0, 0.0, 1.0, 9.0]), np.full(20_000, 1), np.full(20_000, 5)) - 1
        ),
    ],
)
def test_picks_follow_the_weights(draw: Callable[[np.random.Generator], Any]) -> None:
    counts = np.bincount(draw(np.random.default_rng(2)), minlength=4)
    assert counts[0] == counts[2] == 0
    assert 2.7 < counts[1] / counts[3] < 3.3


def test_expand_numbers_the_members_of_each_group() -> None:
    owner, place = expand(np.array([2, 0, 3]))
    assert owner.tolist() == [0, 0, 2, 2, 2]
    assert place.tolist() == [0, 1, 0, 1, 2]
