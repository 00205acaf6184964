"""The operational schema by area: which table is drawn where, and what an area shows of its neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from payments.diagrams.model import Column, Entity, Reference
from payments.diagrams.themes import AMBER, BLUE, GREEN, PURPLE, RED, TEAL, Theme
from payments.errors import UsageError

NEIGHBOURS = "neighbours"
"""The frame that holds what an area refers to in other areas."""


@dataclass(frozen=True)
class Area:
    """A part of the operational schema with a diagram of its own: ``oltp_<name>.svg``."""

    name: str
    title: str
    purpose: str
    theme: Theme
    tables: tuple[str, ...]


AREAS = (
    Area(
        "parties",
        "Parties",
        "Merchants, their customers and stored payment methods; identity encrypted, keys apart.",
        BLUE,
        (
            "core.merchants",
            "core.customers",
            "core.payment_methods",
            "core.setup_intents",
            "identity.customers",
            "vault.subjects",
        ),
    ),
    Area(
        "payments",
        "Payments",
        "From the intention to pay to the charge, and what becomes of it: refunds, disputes, reviews.",
        GREEN,
        (
            "core.checkout_sessions",
            "core.payment_intents",
            "core.charges",
            "core.refunds",
            "core.disputes",
            "core.reviews",
            "core.early_fraud_warnings",
        ),
    ),
    Area(
        "billing",
        "Billing",
        "What merchants sell and bill: products, prices, subscriptions, invoices.",
        PURPLE,
        (
            "core.products",
            "core.prices",
            "core.coupons",
            "core.subscriptions",
            "core.subscription_items",
            "core.discounts",
            "core.invoices",
            "core.invoice_lines",
            "core.credit_notes",
        ),
    ),
    Area(
        "balance",
        "Balance",
        "What moves a merchant's balance: balance transactions with their fees, payouts, transfers, conversions.",
        AMBER,
        (
            "core.balance_transactions",
            "core.balance_transaction_fees",
            "core.settlements",
            "core.payouts",
            "core.payout_balance_transactions",
            "core.transfers",
            "core.application_fees",
            "core.topups",
            "core.currency_conversions",
            "core.adjustments",
        ),
    ),
    Area(
        "ledger",
        "Ledger",
        "Double entry: one book a merchant, holds before postings, a hash chain over all of it.",
        TEAL,
        (
            "ledger.account_codes",
            "ledger.accounts",
            "ledger.transactions",
            "ledger.entries",
            "ledger.holds",
            "ledger.closed_periods",
            "ledger.seals",
        ),
    ),
    Area(
        "operations",
        "Operations and reference",
        "Idempotency, events, audit trail, the rules of change, and the lists of codes.",
        RED,
        (
            "core.currencies",
            "core.countries",
            "core.merchant_categories",
            "ops.idempotency_keys",
            "ops.outbox",
            "ops.audit_log",
            "ops.monthly_tables",
            "rules.state_transitions",
            "rules.foreign_keys",
            "rules.triggers",
            "simulation.runs",
        ),
    ),
)

NAMED = ("core.merchants", "core.currencies", "core.countries", "core.merchant_categories")
"""Tables that nearly every other one refers to: outside of their own area they are named beside the column."""


def area_of(table: str) -> Area:
    """Return the area that a table stands in.

    Raises:
        UsageError: it stands in none.
    """
    for area in AREAS:
        if table in area.tables:
            return area
    raise UsageError(f"{table} stands in no area of the diagrams: add it to payments/diagrams/areas.py")


def named_in(area: Area) -> frozenset[str]:
    """Return the tables that are named beside a column in the diagram of an area, instead of a line."""
    return frozenset(NAMED) - frozenset(area.tables)


def entities_of(area: Area, tables: Sequence[Entity]) -> list[Entity]:
    """Return the tables of an area in full, before them the keys of the tables that they refer to in other areas.

    Raises:
        UsageError: a table stands in no area.
    """
    own = [replace(table, group=area.title) for table in tables if area_of(table.name) is area]
    targets = {reference.target for table in own for reference in table.references}
    elsewhere = targets - set(area.tables) - named_in(area)
    neighbours = [
        replace(
            table,
            group=NEIGHBOURS,
            columns=tuple(table.column(name) for name in table.primary_key),
            references=(),
        )
        for table in tables
        if table.name in elsewhere
    ]
    return [*neighbours, *own]


def map_of(tables: Sequence[Entity]) -> list[Entity]:
    """Return one entity an area, with a row a table, and the references that lead from area to area.

    Raises:
        UsageError: a table stands in no area.
    """
    by_area = {area: [table for table in tables if area_of(table.name) is area] for area in AREAS}
    return [
        Entity(
            group=area.name,
            name=_card_of(area),
            columns=tuple(Column(table.name, f"{len(table.columns)} columns", is_nullable=False) for table in own),
            primary_key=(),
            references=tuple(
                Reference((table.name,), _card_of(area_of(target)), (target,))
                for table in own
                for target in dict.fromkeys(reference.target for reference in table.references)
                if target not in NAMED and area_of(target) is not area
            ),
        )
        for area, own in by_area.items()
    ]


def _card_of(area: Area) -> str:
    return f"{area.name}.{len(area.tables)} tables"


def index_of(tables: Sequence[Entity]) -> str:
    """Return the areas as Markdown: what each holds, its tables, and its diagram.

    Raises:
        UsageError: a table stands in no area.
    """
    lines = ["| area | what it holds | tables |", "|---|---|---|"]
    for area in AREAS:
        names = ", ".join(f"`{table.name}`" for table in tables if area_of(table.name) is area)
        lines.append(f"| [{area.title}]({picture_of(area)}) | {area.purpose} | {names} |")
    for area in AREAS:
        lines += ["", f"### {area.title}", "", f"![{area.title}: {area.purpose}]({picture_of(area)})"]
    return "\n".join(lines) + "\n"


def picture_of(area: Area) -> str:
    """Return the path of the diagram of an area in the project."""
    return f"docs/generated/oltp_{area.name}.svg"
