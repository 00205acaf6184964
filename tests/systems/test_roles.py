"""Who may do what in the operational store: every role, relation, verb and owner is tried, as a login of that role."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import make_conninfo

from payments.settings import settings
from payments.systems.oltp.connection import connect, dsn
from tests.conftest import Servers, empty_oltp
from tests.systems.authorization import (
    SEQUENCE_VERBS,
    TABLE_VERBS,
    Cell,
    Relation,
    allowed,
    attempts_on,
    calls,
    copies,
    relations,
)
from tests.systems.two_merchants import OURS, THEIRS, open_two_merchants

APP, REPLICATION, ANALYST, AUDITOR, OPERATOR = ROLES = (
    "payments_app",
    "payments_replication",
    "payments_analyst",
    "payments_auditor",
    "payments_operator",
)
NOBODY, WAREHOUSE = "nobody", "warehouse"
PLATFORM = (REPLICATION, ANALYST, AUDITOR, OPERATOR)

# What the business is about: of its merchant to the application, whole to the platform's roles.
BUSINESS = """
core.merchants core.customers core.payment_methods core.payment_intents core.charges core.refunds core.disputes
core.balance_transactions core.balance_transaction_fees core.setup_intents core.reviews core.early_fraud_warnings
core.products core.prices core.coupons core.subscriptions core.subscription_items core.discounts core.invoices
core.invoice_lines core.credit_notes core.checkout_sessions core.settlements core.payouts
core.payout_balance_transactions core.transfers core.application_fees core.topups core.currency_conversions
core.adjustments ledger.accounts ledger.transactions ledger.entries ledger.holds
"""


@dataclass(frozen=True)
class Rule:
    """These roles may do these verbs on these objects: with rows of their merchant only, or whoever owns them."""

    roles: tuple[str, ...]
    verbs: tuple[str, ...]
    objects: str
    whose: tuple[str, ...] = ("own", "other")


READ, OWN = ("select", "copy to"), ("own",)

# The whole policy; what no rule allows is refused. It is written from what each role is for, not from the grants.
POLICY = (
    Rule((APP,), READ, BUSINESS, OWN),
    Rule(PLATFORM, READ, BUSINESS),
    Rule(ROLES, READ, "core.currencies core.countries core.merchant_categories"),
    Rule(PLATFORM, READ, "ledger.account_codes ledger.closed_periods"),
    Rule((APP,), READ, "ledger.general_ledger ops.outbox identity.customers vault.subjects", OWN),
    Rule((AUDITOR, OPERATOR), READ, "ledger.general_ledger ops.audit_log"),
    Rule((REPLICATION, AUDITOR, OPERATOR), READ, "ledger.seals"),
    Rule((REPLICATION, OPERATOR), READ, "ops.outbox"),
    Rule((OPERATOR,), READ, "ops.idempotency_keys ops.monthly_tables"),
    Rule(
        (APP,),
        ("insert", "update"),
        "core.customers core.payment_methods core.setup_intents core.products core.prices core.coupons "
        "core.checkout_sessions core.reviews",
        OWN,
    ),
    Rule((APP,), ("insert",), "core.early_fraud_warnings identity.customers", OWN),
    Rule((APP,), ("insert",), "vault.subjects"),  # a person belongs to no merchant before it is a customer
    Rule((APP,), ("execute",), "api.call core.new_id core.id_moment ops.current_merchant"),
    Rule((AUDITOR, OPERATOR), ("execute",), "ledger.broken_seals ledger.content_of ledger.seal_hash"),
    Rule((ANALYST, AUDITOR, OPERATOR), ("execute",), "ledger.trial_balance ledger.account_id"),
    Rule(
        (OPERATOR,),
        ("execute",),
        "ledger.seal ledger.close_period ops.ensure_months ops.stray_rows ops.stray_months ops.forget_idempotency_keys "
        "core.expire_authorizations core.settle_due core.settle_day core.create_payout core.advance_payout "
        "core.close_refund core.open_dispute core.advance_dispute core.close_dispute core.bill_subscription "
        "core.end_invoice core.reverse_topup core.propose_adjustment core.decide_adjustment",
    ),
)
ALLOWED = {
    (role, name, verb, whose)
    for rule in POLICY
    for role in rule.roles
    for name in rule.objects.split()
    for verb in rule.verbs
    for whose in rule.whose
}


def _expected(role: str, cell: Cell) -> bool:
    return (role, cell.object.split("(")[0], cell.verb, cell.whose) in ALLOWED


@dataclass(frozen=True)
class Store:
    """The store with two merchants: its owner's connection, and a login of each role, which acts for ours."""

    owner: psycopg.Connection
    logins: dict[str, psycopg.Connection]


@pytest.fixture(scope="module")
def store(servers: Servers) -> Iterator[Store]:
    with connect(autocommit=True) as owner:
        assert owner.info.port == servers.oltp_port
        empty_oltp(owner)
        open_two_merchants(owner)
        with _logins(owner) as logins:
            yield Store(owner, logins)


@contextmanager
def _logins(owner: psycopg.Connection) -> Iterator[dict[str, psycopg.Connection]]:
    """Make a login of each role and connect as it; the warehouse's is refused a connection and borrows the owner's."""
    found = {}
    try:
        for role in (*ROLES, NOBODY):
            name = sql.Identifier(f"trial_{role}")
            owner.execute(sql.SQL("drop role if exists {}").format(name))
            owner.execute(sql.SQL("create role {} login password 'trial'").format(name))
            if role != NOBODY:
                owner.execute(sql.SQL("grant {} to {}").format(sql.Identifier(role), name))
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(_as("trial_nobody"))
        owner.execute("grant connect on database payments to trial_nobody")  # so that what lies within can be tried
        for role in (*ROLES, NOBODY):
            found[role] = psycopg.connect(_as(f"trial_{role}"), autocommit=True)
        found[WAREHOUSE] = connect(autocommit=True)
        found[WAREHOUSE].execute("set session authorization warehouse")
        for login in found.values():
            login.execute("select set_config('app.merchant_id', %s, false)", (OURS,))
        yield found
    finally:
        for login in found.values():
            login.close()
        owner.execute("revoke connect on database payments from trial_nobody")
        for role in (*ROLES, NOBODY):
            owner.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(f"trial_{role}")))


def _as(user: str) -> str:
    return make_conninfo(dsn(), user=user, password="trial", options="-c timezone=UTC")


@pytest.fixture
def app(store: Store) -> Iterator[psycopg.Connection]:
    """The application's login, acting for ours; what it does is rolled back."""
    login = store.logins[APP]
    login.execute("begin")
    login.execute("savepoint fresh")
    yield login
    login.execute("rollback")


def _tried(store: Store, found: list[Relation], role: str) -> dict[Cell, bool | str]:
    login = store.logins[role]
    outcomes = allowed(login, [attempt for relation in found for attempt in attempts_on(relation)])
    for relation in found:
        if relation.kind != "sequence":
            outcomes |= copies(login, relation)
    return outcomes


def _mismatches(store: Store, found: list[Relation], role: str) -> list[tuple[str, Cell, bool | str]]:
    return [
        (role, cell, outcome)
        for cell, outcome in _tried(store, found, role).items()
        if outcome is not _expected(role, cell)
    ]


def test_every_role_may_do_what_it_should_and_nothing_else(store: Store) -> None:
    found = relations(store.owner)
    functions = calls(store.owner)
    cells = 0
    granted = 0
    mismatches = []
    for role in (*ROLES, NOBODY, WAREHOUSE):
        outcomes = _tried(store, found, role) | allowed(store.logins[role], functions)
        mismatches += [(role, c, outcome) for c, outcome in outcomes.items() if outcome is not _expected(role, c)]
        cells += len(outcomes)
        granted += sum(_expected(role, cell) for cell in outcomes)
    print(
        f"{cells:,} cells: {len(ROLES) + 2} roles, {len(found)} relations, {len(functions)} functions; "
        f"{granted:,} allowed, {len(mismatches)} mismatches"
    )
    assert mismatches == []
    sequences = sum(relation.kind == "sequence" for relation in found)
    per_role = (len(found) - sequences) * len(TABLE_VERBS) * 2 + sequences * len(SEQUENCE_VERBS) + len(functions)
    assert cells == per_role * (len(ROLES) + 2) >= 2_000
    # Every rule of the policy is about something that exists, and every tenant table holds rows of both merchants.
    known = {relation.name for relation in found} | {function.cell.object.split("(")[0] for function in functions}
    assert {name for _, name, _, _ in ALLOWED} <= known
    tenants = [relation for relation in found if relation.kind == "table" and "merchant_id" in relation.columns]
    assert len(tenants) > 35
    assert [relation.name for relation in tenants if len(relation.rows) < 2] == []


@pytest.mark.parametrize(
    ("role", "relation", "change", "undo"),
    [
        (
            APP,
            "core.charges",
            "alter table core.charges disable row level security",
            "alter table core.charges enable row level security",
        ),
        (
            APP,
            "core.charges_p0",
            "grant select on core.charges_p0 to public",
            "revoke select on core.charges_p0 from public",
        ),
        (
            OPERATOR,
            "ledger.entries",
            "grant delete, truncate on ledger.entries to payments_operator",
            "revoke delete, truncate on ledger.entries from payments_operator",
        ),
        (
            ANALYST,
            "core.customers",
            "grant update on core.customers to payments_analyst; create policy slip on core.customers using (true)",
            "revoke update on core.customers from payments_analyst; drop policy slip on core.customers",
        ),
        (
            APP,
            "ledger.general_ledger",
            "alter view ledger.general_ledger set (security_invoker = false)",
            "alter view ledger.general_ledger set (security_invoker = true)",
        ),
        (
            NOBODY,
            "core.currencies",
            "grant usage on schema core to public; grant select on core.currencies to public",
            "revoke usage on schema core from public; revoke select on core.currencies from public",
        ),
    ],
)
def test_the_matrix_notices_a_slip(store: Store, role: str, relation: str, change: str, undo: str) -> None:
    about = [found for found in relations(store.owner) if found.name == relation]
    assert _mismatches(store, about, role) == []
    store.owner.execute(change.encode())
    try:
        assert _mismatches(store, about, role) != []
    finally:
        store.owner.execute(undo.encode())


def test_the_catalogue_leaves_no_door_open(store: Store) -> None:
    def none(query: str) -> None:
        assert store.owner.execute(query.encode()).fetchall() == []

    # Every tenant table shows the application only the rows of the merchant that the session acts for.
    none(
        """
        select c.oid::regclass
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        inner join pg_attribute as a on c.oid = a.attrelid and a.attname = 'merchant_id'
        where c.relkind in ('r', 'p') and not c.relispartition and n.nspname !~ '^pg_' and (
            not c.relrowsecurity
            or not exists (
                select from pg_policies as p
                where (p.schemaname, p.tablename) = (n.nspname, c.relname)
                    and p.roles = '{payments_app}'
                    and p.permissive = 'PERMISSIVE'
                    and p.qual = '(merchant_id = ops.current_merchant())'
                    and p.with_check = p.qual
            )
        )
        """
    )
    # Functions find what they name where it was when they were written, whatever the caller's search path.
    none(
        """
        select p.oid::regprocedure
        from pg_proc as p
        inner join pg_namespace as n on p.pronamespace = n.oid
        where n.nspname in ('core', 'ledger', 'ops', 'rules', 'api')
            and p.prosqlbody is null
            and not coalesce('search_path=pg_catalog, pg_temp' = any(p.proconfig), false)
        """
    )
    # Nothing is granted to everybody, and no role of the group can make itself more than it is.
    none(
        """
        select c.oid::regclass::text from pg_class as c, aclexplode(c.relacl) as g
        inner join pg_namespace as n on true
        where n.oid = c.relnamespace and g.grantee = 0 and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        union all
        select p.oid::regprocedure::text
        from pg_proc as p
        inner join pg_namespace as n on p.pronamespace = n.oid
        cross join aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as g
        where g.grantee = 0 and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
        union all
        select r.rolname::text from pg_roles as r
        where r.rolname like 'payments\\_%' and (
            r.rolsuper or r.rolbypassrls or r.rolcreaterole or r.rolcreatedb or r.rolreplication or r.rolcanlogin
        )
        union all
        select 'database: ' || g.privilege_type from pg_database as d, aclexplode(d.datacl) as g
        where d.datname = current_database() and g.grantee = 0
        """
    )
    none(
        """
        select c.oid::regclass from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where c.relkind in ('v', 'm') and n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops', 'rules', 'api')
            and not coalesce('security_invoker=true' = any(c.reloptions), false)
        """
    )


def test_what_a_later_migration_makes_is_closed(store: Store) -> None:
    with store.owner.transaction(force_rollback=True):
        store.owner.execute("create function core.later() returns integer language sql return 1")
        store.owner.execute("create table core.later_table (n integer)")
        row = store.owner.execute(
            "select has_function_privilege('trial_nobody', 'core.later()', 'execute'), "
            "has_table_privilege('trial_nobody', 'core.later_table', 'select')"
        ).fetchone()
    assert row == (False, False)


def _merchants(login: psycopg.Connection, query: str) -> set[str]:
    return {merchant for (merchant,) in login.execute(query.encode()).fetchall()}


def test_copy_takes_out_own_rows_only_and_puts_none_in(store: Store, app: psycopg.Connection) -> None:
    def copied(query: str) -> str:
        with app.cursor() as cursor, cursor.copy(query.encode()) as copy:
            return b"".join(bytes(part) for part in copy).decode()

    for query in ("copy core.products to stdout", "copy (select * from core.charges) to stdout"):
        text = copied(query)
        assert OURS in text
        assert THEIRS not in text
    for statement, error in (
        ("copy core.products from stdin", errors.FeatureNotSupported),
        ("copy core.charges_p0 to stdout", errors.InsufficientPrivilege),
        ("copy core.products to '/dev/null'", errors.InsufficientPrivilege),
        ("copy core.products to program 'true'", errors.InsufficientPrivilege),
    ):
        with pytest.raises(error), app.cursor().copy(statement.encode()):
            pass
        app.execute("rollback to savepoint fresh")


def test_a_view_shows_what_its_reader_may_see(store: Store, app: psycopg.Connection) -> None:
    query = "select distinct merchant_id from ledger.general_ledger"
    assert _merchants(app, query) == {OURS}
    assert _merchants(store.logins[AUDITOR], query) == {OURS, THEIRS}
    with pytest.raises(errors.InsufficientPrivilege):
        store.logins[ANALYST].execute(query.encode())


@pytest.mark.parametrize(
    "value", ["", "%", "acct_ours' or 'a' = 'a", "acct_theirs,acct_ours", "{acct_ours}", " acct_ours", "ACCT_OURS"]
)
def test_only_a_whole_merchant_id_opens_its_rows(app: psycopg.Connection, value: str) -> None:
    app.execute("select set_config('app.merchant_id', %s, true)", (value,))
    assert _merchants(app, "select merchant_id from core.charges") == set()
    with pytest.raises(errors.InsufficientPrivilege, match="row-level security"):
        app.execute(
            "insert into core.products (merchant_id, product_id, product_name, created_at, updated_at) "
            "values ('acct_ours', 'prod_9', 'Tea', now(), now())"
        )


@pytest.mark.parametrize(
    "statement",
    [
        "set role payments_operator",
        "set role postgres",
        "set session authorization payments_operator",
        "set session_replication_role = replica",
        "alter role payments_app bypassrls",
        "grant payments_operator to payments_app",
        "alter table core.charges disable row level security",
        "drop policy of_merchant on core.charges",
        "create temporary table mine (n integer)",
        "create table core.mine (n integer)",
        "create function core.mine() returns integer language sql return 1",
        "create schema mine",
        "set row_security = off; select count(*) from core.charges",
        "select pg_read_file('PG_VERSION')",
    ],
)
def test_no_setting_or_statement_makes_the_application_more(app: psycopg.Connection, statement: str) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        app.execute(statement.encode())


def test_the_merchant_of_a_transaction_ends_with_it(store: Store) -> None:
    with psycopg.connect(_as(f"trial_{APP}")) as login:
        login.execute("select set_config('app.merchant_id', %s, true)", (OURS,))
        assert _merchants(login, "select merchant_id from core.charges") == {OURS}
        login.commit()
        assert _merchants(login, "select merchant_id from core.charges") == set()


def test_a_condition_cannot_look_at_the_rows_of_others(app: psycopg.Connection) -> None:
    # Every expression here would raise, or tell, if it were ever evaluated on a row of the other merchant.
    spying = "set_config('trial.seen', current_setting('trial.seen', true) || ',' || merchant_id, false) <> ''"
    for relation in ("core.charges", "core.products", "ledger.entries", "ledger.general_ledger", "ops.outbox"):
        for condition in (
            "1 / (case merchant_id when 'acct_theirs' then 0 else 1 end) = 1",
            "case merchant_id when 'acct_theirs' then merchant_id::integer else 1 end = 1",
            spying,
        ):
            app.execute("select set_config('trial.seen', 'seen', false)")
            assert _merchants(app, f"select merchant_id from {relation} where {condition}") == {OURS}
            assert app.execute("select current_setting('trial.seen') ~ 'theirs'").fetchone() == (False,)


def test_statistics_tell_nothing_of_others(store: Store, app: psycopg.Connection) -> None:
    store.owner.execute("analyze core.charges, core.products, vault.subjects")
    query = "select count(*) from pg_stats where schemaname in ('core', 'vault') and tablename <> all(%s)"
    reference = (["currencies", "countries", "merchant_categories"],)
    assert app.execute(query.encode(), reference).fetchone() == (0,)
    found = store.owner.execute(query.encode(), reference).fetchone()
    assert found is not None
    assert found[0] > 0


def _refusal(login: psycopg.Connection, statement: str) -> psycopg.Error:
    with pytest.raises(psycopg.Error) as caught:
        login.execute(statement.encode())
    login.execute("rollback to savepoint fresh")
    return caught.value


def _told(error: psycopg.Error) -> str:
    return f"{error.diag.message_primary} {error.diag.message_detail}"


_NEW_METHOD = (
    "insert into core.payment_methods (merchant_id, payment_method_id, customer_id, type, fingerprint, created_at, "
    "updated_at) values ('{}', '{}', '{}', 'bank_debit', 'fp_2', now(), now())"
)


def test_errors_tell_nothing_of_others(store: Store, app: psycopg.Connection) -> None:
    store.owner.execute(
        """
        insert into core.customers
        select (jsonb_populate_record(c, '{"customer_id": "cus_secret"}')).*
        from core.customers as c
        where c.merchant_id = %s and c.customer_id = 'cus_1'
        on conflict do nothing
        """,
        (THEIRS,),
    )
    store.owner.execute("select core.create_payment_intent(%s, 'cus_1', 900, 'EUR', 'pm_1', 'pi_secret')", (THEIRS,))
    store.owner.execute("select core.confirm_payment_intent(%s, 'pi_secret', p_charge_id => 'ch_secret')", (THEIRS,))
    # A key that the other has, whether it exists or not: refused before any index is asked.
    taken, free = (_told(_refusal(app, _NEW_METHOD.format(THEIRS, key, "cus_1"))) for key in ("pm_1", "pm_9"))
    assert taken == free
    assert "row-level security" in taken
    # A reference to what only the other has reads like a reference to nothing.
    theirs, nothing = (_told(_refusal(app, _NEW_METHOD.format(OURS, "pm_9", c))) for c in ("cus_secret", "cus_none"))
    assert theirs.replace("cus_secret", "cus_none") == nothing
    assert "foreign key" in nothing
    # One's own duplicate is named as ever; a broken check does not show the row.
    assert _refusal(app, _NEW_METHOD.format(OURS, "pm_1", "cus_1")).sqlstate == "23505"
    broken = _refusal(app, _NEW_METHOD.format(OURS, "nonsense", "cus_1"))
    assert broken.sqlstate == "23514"
    assert "Failing row" not in _told(broken)
    # The same through the door.
    for call, theirs_only in (("refunds.create", "ch_secret"), ("payment_intents.capture", "pi_secret")):
        key = "charge_id" if call == "refunds.create" else "payment_intent_id"
        told = [
            _told(_refusal(app, f"""select api.call('{OURS}', null, '{call}', '{{"{key}": "{given}"}}')"""))
            for given in (theirs_only, "x_none")
        ]
        assert told[0].replace(theirs_only, "x_none") == told[1]
        assert THEIRS not in "".join(told)


def test_the_door_opens_for_the_merchant_of_the_session_only(store: Store, app: psycopg.Connection) -> None:
    call = """select api.call({}, {}, 'topups.create', '{{"amount_minor": 100, "currency": "EUR"}}')"""
    count = "select count(*) from core.topups"
    before = store.owner.execute(count.encode()).fetchone()
    for merchant in (f"'{THEIRS}'", "null", "''", f"' {OURS}'"):
        refused = _refusal(app, call.format(merchant, "'key-2'"))
        assert refused.sqlstate == "42501"
        assert refused.diag.message_primary == "this session may not act for that merchant"
    app.execute("select set_config('app.merchant_id', '', true)")
    assert _refusal(app, call.format("null", "null")).sqlstate == "42501"
    assert store.owner.execute(count.encode()).fetchone() == before
    # Both merchants used key-1: each gets its own answer.
    answers = []
    for merchant in (OURS, THEIRS):
        app.execute("select set_config('app.merchant_id', %s, true)", (merchant,))
        row = app.execute(call.format(f"'{merchant}'", "'key-1'").encode()).fetchone()
        assert row is not None
        answers.append(row[0])
        assert app.execute("select merchant_id from core.topups where topup_id = %s", (row[0]["id"],)).fetchall() == [
            (merchant,)
        ]
    assert all(answer["is_replayed"] for answer in answers)
    assert answers[0]["id"] != answers[1]["id"]


def test_the_application_moves_objects_along_their_states_only(app: psycopg.Connection) -> None:
    app.execute("update core.setup_intents set status = 'succeeded' where setup_intent_id = 'seti_1'")
    app.execute("update core.checkout_sessions set status = 'complete' where checkout_session_id = 'cs_1'")
    with pytest.raises(errors.CheckViolation, match="succeeded to requires_action is illegal"):
        app.execute("update core.setup_intents set status = 'requires_action' where setup_intent_id = 'seti_1'")


def test_the_key_of_a_person_is_read_by_its_merchants_only(app: psycopg.Connection) -> None:
    keys = app.execute("select convert_from(wrapped_key, 'UTF8') from vault.subjects").fetchall()
    assert keys == [(f"wrapped key of {OURS}",)]
    subject = "11111111-2222-3333-4444-555555555555"
    app.execute("insert into vault.subjects (subject_id, key_id, wrapped_key) values (%s, 'key-1', 'new')", (subject,))
    assert len(app.execute("select from vault.subjects").fetchall()) == 1
    app.execute(
        """
        insert into core.customers
        select (jsonb_populate_record(c, '{"customer_id": "cus_2"}')).* from core.customers as c
        """
    )
    app.execute(
        "insert into identity.customers values (%s, 'cus_2', %s, 'a', 'b', 'c', 'd')",
        (OURS, subject),
    )
    assert len(app.execute("select from vault.subjects").fetchall()) == 2


def test_the_warehouse_role_gets_no_connection(store: Store) -> None:
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(
            make_conninfo(dsn(), user=settings().warehouse_user, password=settings().warehouse_password)
        ).close()
    row = store.owner.execute("select has_database_privilege('warehouse', 'payments', 'connect')").fetchone()
    assert row == (False,)


def test_maker_and_checker_are_two_logins(store: Store) -> None:
    maker = store.logins[OPERATOR]
    row = maker.execute("select core.propose_adjustment(%s, 100, 'EUR', 'goodwill of the month')", (OURS,)).fetchone()
    assert row is not None
    decide = "select core.decide_adjustment(%s, %s, 'approved')"
    # The name that a session gives itself makes no difference.
    maker.execute("select set_config('app.actor', 'somebody else', false)")
    with pytest.raises(errors.CheckViolation, match="maker_is_not_checker"):
        maker.execute(decide, (OURS, row[0]))
    assert store.owner.execute(decide, (OURS, row[0])).fetchone() == row
