"""The rules of the gate: what must hold of every staging model before anything is built from it.

Each rule is data: a name, the relation, the columns it reads and a condition. Deleted records keep only their key, so
conditions that need a value look at the living ones.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ingestion.contracts import LARGEST_AMOUNT_MINOR
from payments.vault.cards import PREFILTER

CARD_FUNCTION = "has_card_number"

STATUSES: Mapping[str, tuple[str, ...]] = {
    "stg_oltp__merchants": ("active", "restricted", "closed"),
    "stg_oltp__payment_intents": (
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
        "processing",
        "requires_capture",
        "succeeded",
        "canceled",
    ),
    "stg_oltp__charges": ("pending", "succeeded", "failed"),
    "stg_oltp__refunds": ("pending", "requires_action", "succeeded", "failed", "canceled"),
    "stg_oltp__disputes": (
        "warning_needs_response",
        "warning_under_review",
        "warning_closed",
        "needs_response",
        "under_review",
        "won",
        "lost",
        "prevented",
    ),
    "stg_oltp__setup_intents": (
        "requires_payment_method",
        "requires_confirmation",
        "requires_action",
        "processing",
        "succeeded",
        "canceled",
    ),
    "stg_oltp__subscriptions": (
        "incomplete",
        "incomplete_expired",
        "trialing",
        "active",
        "past_due",
        "canceled",
        "unpaid",
        "paused",
    ),
    "stg_oltp__invoices": ("draft", "open", "paid", "uncollectible", "void"),
    "stg_oltp__checkout_sessions": ("open", "complete", "expired"),
    "stg_oltp__payouts": ("pending", "in_transit", "paid", "failed", "canceled"),
    "stg_oltp__topups": ("pending", "succeeded", "failed", "canceled", "reversed"),
    "stg_oltp__adjustments": ("proposed", "approved", "rejected"),
    "stg_oltp__ledger_holds": ("pending", "posted", "voided", "expired"),
    "stg_documents__bank_statement_entries": ("booked", "pending"),
    "stg_files__transactions": ("pending", "succeeded", "failed", "refunded", "disputed"),
}
"""The states an object of a relation can be in."""

DOCUMENT_WORDS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("stg_documents__fraud_scores", "decision"): ("allow", "review", "block"),
    ("stg_documents__fraud_decisions", "decision"): ("allow", "review", "block"),
    ("stg_documents__fraud_decisions", "outcome"): ("genuine", "fraud"),
    ("stg_documents__webhook_deliveries", "state"): ("pending", "delivered", "failed"),
    ("stg_documents__audit_events", "actor_type"): ("merchant_user", "operator", "service"),
    ("stg_documents__audit_events", "action"): ("view", "export", "create", "update", "delete", "login"),
    ("stg_documents__audit_events", "outcome"): ("allowed", "denied"),
}
"""The words in a column of a staged collection, where a decision or an action is judged by them."""

SMALLEST_AMOUNT: Mapping[tuple[str, str], int] = {
    ("stg_oltp__payment_intents", "amount_minor"): 1,
    ("stg_oltp__charges", "amount_minor"): 1,
    ("stg_oltp__refunds", "amount_minor"): 1,
    ("stg_oltp__disputes", "amount_minor"): 1,
    ("stg_oltp__balance_transactions", "amount_minor"): -LARGEST_AMOUNT_MINOR,
    ("stg_oltp__balance_transaction_fees", "amount_minor"): 1,
    ("stg_oltp__settlements", "amount_minor"): 1,
    ("stg_oltp__payouts", "amount_minor"): 1,
    ("stg_oltp__transfers", "amount_minor"): 1,
    ("stg_oltp__application_fees", "amount_minor"): 1,
    ("stg_oltp__topups", "amount_minor"): 1,
    ("stg_oltp__currency_conversions", "from_amount_minor"): 1,
    ("stg_oltp__currency_conversions", "to_amount_minor"): 1,
    ("stg_oltp__adjustments", "amount_minor"): -LARGEST_AMOUNT_MINOR,
    ("stg_oltp__prices", "unit_amount_minor"): 0,
    ("stg_oltp__invoices", "total_minor"): 0,
    ("stg_oltp__invoice_lines", "amount_minor"): 0,
    ("stg_oltp__credit_notes", "amount_minor"): 1,
    ("stg_oltp__checkout_sessions", "amount_total_minor"): 0,
    ("stg_oltp__ledger_entries", "amount_minor"): 1,
    ("stg_oltp__ledger_holds", "amount_minor"): 1,
    ("stg_documents__fraud_decisions", "amount_minor"): 0,
    ("stg_documents__bank_statement_entries", "amount_minor"): 0,
    ("stg_files__transactions", "amount_minor"): 0,
}
"""The smallest amount in a column of a relation: a file may report a payment of nothing, a charge is never empty.

What moves a balance is signed.
"""

BRANDS = ("visa", "mastercard", "amex", "discover", "jcb", "unionpay")
CURRENCY_COLUMNS = frozenset({"currency", "default_currency", "from_currency", "to_currency"})
COUNTRY_COLUMNS = frozenset({"country", "ip_country", "issuer_country"})

OPTIONAL_COLUMNS = frozenset({("stg_files__transactions", "status"), ("stg_oltp__coupons", "currency")})
"""What a living row may lack: a file need not give a status (none means succeeded), a coupon may be a share off."""

REQUIRED_RELATIONS = frozenset(
    {
        "stg_oltp__merchants",
        "stg_oltp__customers",
        "stg_oltp__payment_methods",
        "stg_oltp__payment_intents",
        "stg_oltp__charges",
        "stg_oltp__refunds",
        "stg_oltp__disputes",
        "stg_oltp__balance_transaction_fees",
        "stg_oltp__ledger_entries",
        "stg_documents__sessions",
        "stg_documents__click_events",
        "stg_documents__feedback",
        "stg_documents__api_logs",
        "stg_documents__error_logs",
        "stg_documents__webhook_deliveries",
        "stg_documents__customer_profiles",
        "stg_documents__fraud_decisions",
        "stg_files__transactions",
    }
)
"""Relations that marts are built from, without which the gate cannot speak: when one is not built, it is closed."""


@dataclass(frozen=True)
class InSet:
    """Every value that is present is one of ``values``."""

    values: tuple[str, ...]


@dataclass(frozen=True)
class Between:
    """Every value that is present lies in [lowest, highest]."""

    lowest: float
    highest: float


@dataclass(frozen=True)
class NoRow:
    """No row fulfils this SQL condition; a condition that is null counts as not fulfilled."""

    condition: str


@dataclass(frozen=True)
class Rule:
    """One rule on one relation. ``InSet`` and ``Between`` speak of the one column named."""

    name: str
    relation: str
    columns: tuple[str, ...]
    condition: InSet | Between | NoRow


@dataclass(frozen=True)
class Relation:
    """A staging model as the warehouse holds it: its columns with their types, and how many rows."""

    name: str
    columns: Mapping[str, str]
    rows: int

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns that hold text of a source; those that the landing writer makes start with an underscore."""
        return tuple(
            name for name, kind in self.columns.items() if kind in {"VARCHAR", "JSON"} and not name.startswith("_")
        )


def card_condition(column: str) -> str:
    """Return the SQL condition that is true where a column holds a card number.

    The prefilter runs in the engine; only the few texts that pass it reach the screening the landing writer uses.
    """
    pattern = PREFILTER.replace("'", "''")
    text = f'cast("{column}" as varchar)'
    return f"case when regexp_matches({text}, '{pattern}') then {CARD_FUNCTION}({text}) else false end"


def rules_for(relation: Relation, currencies: tuple[str, ...], countries: tuple[str, ...]) -> Iterator[Rule]:
    """Yield the rules of a relation, given the known currency and country codes."""
    name, columns = relation.name, relation.columns

    if relation.text_columns:
        found = " or ".join(card_condition(column) for column in relation.text_columns)
        yield Rule("no_card_number", name, relation.text_columns, NoRow(found))
    for column in columns:
        if column in CURRENCY_COLUMNS:
            yield Rule("known_currency", name, (column,), InSet(currencies))
        if column in COUNTRY_COLUMNS:
            yield Rule("known_country", name, (column,), InSet(countries))
    if name in STATUSES:
        yield Rule("status_in_set", name, ("status",), InSet(STATUSES[name]))
    for (relation_name, column), words in DOCUMENT_WORDS.items():
        if relation_name == name:
            yield Rule(f"{column}_in_set", name, (column,), InSet(words))
    for (relation_name, column), smallest in SMALLEST_AMOUNT.items():
        if relation_name == name:
            yield Rule("amount_in_range", name, (column,), Between(smallest, LARGEST_AMOUNT_MINOR))
    if "anomaly_score" in columns:
        yield Rule("anomaly_score_in_range", name, ("anomaly_score",), Between(0, 1))
    if "is_deleted" in columns:
        yield from _presence_rules(relation)
    yield from _SPECIAL_RULES.get(name, ())


_AMOUNT_COLUMNS = tuple(dict.fromkeys(column for _, column in SMALLEST_AMOUNT))


def _presence_rules(relation: Relation) -> Iterator[Rule]:
    """Yield the rule that a living row has the money, currency and status that the other rules judge when present."""
    judged = [
        column
        for column in (*_AMOUNT_COLUMNS, *sorted(CURRENCY_COLUMNS), "status")
        if column in relation.columns and (relation.name, column) not in OPTIONAL_COLUMNS
    ]
    if judged:
        absent = " or ".join(f"{column} is null" for column in judged)
        yield Rule("money_fields_present", relation.name, tuple(judged), NoRow(f"not is_deleted and ({absent})"))


_EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+[.][A-Za-z]"
_BRAND_LIST = ", ".join(f"'{brand}'" for brand in BRANDS)

_SPECIAL_RULES: Mapping[str, tuple[Rule, ...]] = {
    "stg_oltp__charges": (
        Rule(
            "captured_within_amount",
            "stg_oltp__charges",
            ("amount_minor", "amount_captured_minor", "amount_refunded_minor"),
            NoRow(
                "not is_deleted and not coalesce(amount_captured_minor between 0 and amount_minor"
                " and amount_refunded_minor between 0 and amount_captured_minor, false)"
            ),
        ),
    ),
    "stg_oltp__payment_methods": (
        Rule(
            "masked_pan_format",
            "stg_oltp__payment_methods",
            ("brand", "last4", "exp_month", "exp_year", "fingerprint"),
            NoRow(
                "not is_deleted and not coalesce("
                "(type = 'bank_debit'"
                f" or (brand in ({_BRAND_LIST}) and last4 is not null"
                " and exp_month is not null and exp_year is not null))"
                " and (last4 is null or regexp_full_match(last4, '[0-9]{4}'))"
                " and (exp_month is null or exp_month between 1 and 12)"
                " and (exp_year is null or exp_year between 2000 and 2100)"
                " and regexp_full_match(fingerprint, 'fp_[0-9a-f]+'), false)"
            ),
        ),
    ),
    "stg_oltp__customers": (
        Rule(
            "consent_present",
            "stg_oltp__customers",
            ("has_marketing_consent", "consent_at"),
            NoRow("not is_deleted and (has_marketing_consent is null or consent_at is null)"),
        ),
        Rule(
            "retention_present",
            "stg_oltp__customers",
            ("retention_until", "consent_at", "created_at"),
            NoRow(
                "not is_deleted and not coalesce(retention_until >= cast(consent_at as date)"
                " and retention_until >= cast(created_at as date), false)"
            ),
        ),
    ),
    "stg_documents__fraud_scores": (Rule("score_in_range", "stg_documents__fraud_scores", ("score",), Between(0, 1)),),
    "stg_documents__fraud_decisions": (
        Rule("score_in_range", "stg_documents__fraud_decisions", ("score",), Between(0, 1)),
        Rule(
            "decision_is_explained",
            "stg_documents__fraud_decisions",
            ("decision", "score", "reasons", "features", "decided_at"),
            NoRow(
                "not is_deleted and (decision is null or score is null or reasons is null or features is null"
                " or decided_at is null)"
            ),
        ),
    ),
    "stg_documents__audit_events": (
        Rule(
            "audit_link_format",
            "stg_documents__audit_events",
            ("sequence", "previous_hash", "hash"),
            NoRow(
                "not is_deleted and not coalesce(sequence >= 1 and regexp_full_match(hash, '[0-9a-f]{64}')"
                " and regexp_full_match(previous_hash, '[0-9a-f]{64}'), false)"
            ),
        ),
    ),
    "stg_documents__error_logs": (
        Rule(
            "no_email_address",
            "stg_documents__error_logs",
            ("message", "context"),
            NoRow(f"regexp_matches(concat_ws(' ', message, context), '{_EMAIL}')"),
        ),
    ),
}
