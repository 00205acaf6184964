-- State machines as data, versions that only grow, and the guards that keep refunds and disputes within what was captured.
create schema rules;

create table rules.state_transitions (
    object text not null,
    from_status text not null,
    to_status text not null,
    primary key (object, from_status, to_status)
);
comment on table rules.state_transitions is 'The changes of status that are legal; every other one is refused.';

insert into rules.state_transitions (object, from_status, to_status)
select object, from_status, to_status
from (
    values
    ('merchants', 'active', '{restricted,closed}'::text []),
    ('merchants', 'restricted', '{active,closed}'),
    (
        'payment_intents',
        'requires_payment_method',
        '{requires_confirmation,requires_action,processing,requires_capture,succeeded,canceled}'
    ),
    (
        'payment_intents',
        'requires_confirmation',
        '{requires_payment_method,requires_action,processing,requires_capture,succeeded,canceled}'
    ),
    ('payment_intents', 'requires_action', '{requires_payment_method,processing,requires_capture,succeeded,canceled}'),
    ('payment_intents', 'processing', '{requires_payment_method,requires_capture,succeeded,canceled}'),
    ('payment_intents', 'requires_capture', '{succeeded,canceled}'),
    ('charges', 'pending', '{succeeded,failed}'),
    ('refunds', 'pending', '{requires_action,succeeded,failed,canceled}'),
    ('refunds', 'requires_action', '{pending,succeeded,failed,canceled}'),
    ('refunds', 'succeeded', '{failed}'),
    ('disputes', 'warning_needs_response', '{warning_under_review,warning_closed,needs_response,prevented}'),
    ('disputes', 'warning_under_review', '{warning_closed,needs_response}'),
    ('disputes', 'needs_response', '{under_review,won,lost}'),
    ('disputes', 'under_review', '{won,lost}'),
    ('setup_intents', 'requires_payment_method', '{requires_confirmation,requires_action,processing,succeeded,canceled}'),
    ('setup_intents', 'requires_confirmation', '{requires_payment_method,requires_action,processing,succeeded,canceled}'),
    ('setup_intents', 'requires_action', '{requires_payment_method,processing,succeeded,canceled}'),
    ('setup_intents', 'processing', '{requires_payment_method,succeeded,canceled}'),
    ('subscriptions', 'incomplete', '{active,trialing,incomplete_expired,canceled}'),
    ('subscriptions', 'trialing', '{active,past_due,canceled,paused,unpaid}'),
    ('subscriptions', 'active', '{past_due,canceled,unpaid,paused,trialing}'),
    ('subscriptions', 'past_due', '{active,canceled,unpaid}'),
    ('subscriptions', 'unpaid', '{active,canceled}'),
    ('subscriptions', 'paused', '{active,canceled}'),
    ('invoices', 'draft', '{open,paid}'),
    ('invoices', 'open', '{paid,uncollectible,void}'),
    ('invoices', 'uncollectible', '{paid,void}'),
    ('checkout_sessions', 'open', '{complete,expired}'),
    ('payouts', 'pending', '{in_transit,paid,failed,canceled}'),
    ('payouts', 'in_transit', '{paid,failed,canceled}'),
    ('payouts', 'paid', '{failed}'),
    ('topups', 'pending', '{succeeded,failed,canceled}'),
    ('topups', 'succeeded', '{reversed}'),
    ('adjustments', 'proposed', '{approved,rejected}'),
    ('holds', 'pending', '{posted,voided,expired}')
) as machine (object, from_status, to_statuses)
cross join unnest(to_statuses) as to_status;

create function rules.guard_update() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if new.merchant_id <> old.merchant_id then
        raise exception '% stays with its merchant', tg_argv[0] using errcode = 'check_violation';
    end if;
    new.version := old.version + 1;
    return new;
end
$$;
comment on function rules.guard_update is 'Counts the version up at every update, whatever the writer said.';

create function rules.require_legal_transition() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from rules.state_transitions as s
        where s.object = tg_argv[0] and s.from_status = old.status and s.to_status = new.status
    ) then
        raise exception '%: a change from % to % is illegal', tg_argv[0], old.status, new.status
            using errcode = 'check_violation';
    end if;
    return new;
end
$$;
comment on function rules.require_legal_transition is
'Refuses a change of status that rules.state_transitions does not list.';

-- Every table with a version is guarded; one with a status follows its state machine. Nothing is ever deleted from them:
-- an end is a status, and erasure of a person destroys its key.
do $$
declare
    v_table record;
begin
    for v_table in
        select
            c.oid::regclass as relation,
            c.relname as name,
            exists (
                select from pg_attribute as s where s.attrelid = c.oid and s.attname = 'status' and not s.attisdropped
            ) as has_status
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        inner join pg_attribute as v on c.oid = v.attrelid and v.attname = 'version'
        where n.nspname in ('core', 'ledger') and c.relkind in ('r', 'p') and not c.relispartition
        order by c.relname
    loop
        execute format(
            'create trigger versioned before update on %s for each row execute function rules.guard_update(%L)',
            v_table.relation,
            v_table.name
        );
        if v_table.has_status then
            execute format(
                'create trigger legal_transition before update of status on %s for each row '
                'when (old.status is distinct from new.status) execute function rules.require_legal_transition(%L)',
                v_table.relation,
                v_table.name
            );
        end if;
        if v_table.name not in ('holds') then
            call ledger.protect(v_table.relation, 'delete');
        end if;
    end loop;
end
$$;

call ledger.protect('vault.subjects', 'delete');
call ledger.protect('identity.customers', 'delete');
call ledger.protect('core.early_fraud_warnings', 'delete');
call ledger.protect('core.discounts', 'delete');
call ledger.protect('core.invoice_lines', 'delete');

create function core.guard_refund() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_live_before bigint := 0;
    v_live_after bigint := 0;
begin
    if tg_op = 'UPDATE' then
        if (new.refund_id, new.charge_id, new.currency) is distinct from (old.refund_id, old.charge_id, old.currency) then
            raise exception 'refund % stays with its charge and currency', old.refund_id
                using errcode = 'check_violation';
        end if;
        if old.status in ('pending', 'requires_action', 'succeeded') then
            v_live_before := old.amount_minor;
        end if;
    end if;
    if new.status in ('pending', 'requires_action', 'succeeded') then
        v_live_after := new.amount_minor;
    end if;

    if v_live_after <> v_live_before or tg_op = 'INSERT' then
        -- The update locks the charge; its constraint refunded_within_captured decides between concurrent refunds.
        update core.charges as c
        set
            amount_refunded_minor = c.amount_refunded_minor + v_live_after - v_live_before,
            updated_at = greatest(c.updated_at, new.updated_at)
        where
            c.merchant_id = new.merchant_id
            and c.charge_id = new.charge_id
            and c.currency = new.currency
            and c.status = 'succeeded';
        if not found then
            raise exception 'refund % needs a succeeded charge in %', new.refund_id, new.currency
                using errcode = 'check_violation';
        end if;
    end if;
    return new;
end
$$;
comment on function core.guard_refund is
'Keeps amount_refunded_minor of the charge equal to the sum of its live refunds.';

create trigger within_captured before insert or update on core.refunds
for each row execute function core.guard_refund();

create function core.guard_dispute() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    update core.charges as c
    set
        is_disputed = true,
        updated_at = greatest(c.updated_at, new.created_at)
    where
        c.merchant_id = new.merchant_id
        and c.charge_id = new.charge_id
        and c.currency = new.currency
        and c.status = 'succeeded'
        and new.amount_minor <= c.amount_captured_minor;
    if not found then
        raise exception 'dispute % needs a succeeded charge in % of at least its amount', new.dispute_id, new.currency
            using errcode = 'check_violation';
    end if;
    return new;
end
$$;
comment on function core.guard_dispute is 'Marks the charge as disputed; refuses a dispute of more than was captured.';

create trigger within_captured before insert on core.disputes
for each row execute function core.guard_dispute();

create function rules.refuse_new_terms() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '% keeps what it is about: only its progress may change', tg_argv[0]
        using errcode = 'check_violation';
end
$$;
comment on function rules.refuse_new_terms is 'Refuses to change the terms of an object.';

create trigger fixed_terms before update on core.charges
for each row when (
    (old.charge_id, old.payment_intent_id, old.customer_id, old.amount_minor, old.currency)
    is distinct from (new.charge_id, new.payment_intent_id, new.customer_id, new.amount_minor, new.currency)
)
execute function rules.refuse_new_terms('charges');
create trigger fixed_terms before update on core.disputes
for each row when (
    (old.dispute_id, old.charge_id, old.amount_minor, old.fee_minor, old.currency)
    is distinct from (new.dispute_id, new.charge_id, new.amount_minor, new.fee_minor, new.currency)
)
execute function rules.refuse_new_terms('disputes');
create trigger fixed_terms before update on core.payouts
for each row when (
    (old.payout_id, old.amount_minor, old.currency) is distinct from (new.payout_id, new.amount_minor, new.currency)
)
execute function rules.refuse_new_terms('payouts');
create trigger fixed_terms before update on core.transfers
for each row when (
    (old.transfer_id, old.destination_merchant_id, old.amount_minor, old.currency)
    is distinct from (new.transfer_id, new.destination_merchant_id, new.amount_minor, new.currency)
)
execute function rules.refuse_new_terms('transfers');
create trigger fixed_terms before update on core.adjustments
for each row when (
    (old.adjustment_id, old.amount_minor, old.currency, old.reason, old.proposed_by)
    is distinct from (new.adjustment_id, new.amount_minor, new.currency, new.reason, new.proposed_by)
)
execute function rules.refuse_new_terms('adjustments');
create trigger fixed_terms before update on ledger.holds
for each row when (
    (old.hold_id, old.source_id, old.debit_account_id, old.credit_account_id, old.amount_minor, old.currency)
    is distinct from (new.hold_id, new.source_id, new.debit_account_id, new.credit_account_id, new.amount_minor, new.currency)
)
execute function rules.refuse_new_terms('holds');
