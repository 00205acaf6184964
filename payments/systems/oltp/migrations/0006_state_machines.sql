-- State machines as data, and the guards that keep refunds and disputes within what was captured.
create schema rules;

create table rules.state_transitions (
    object text not null,
    from_status text not null,
    to_status text not null,
    primary key (object, from_status, to_status)
);
comment on table rules.state_transitions is 'The changes of status that are legal; every other one is refused.';

insert into rules.state_transitions (object, from_status, to_status) values
('merchants', 'active', 'restricted'),
('merchants', 'active', 'closed'),
('merchants', 'restricted', 'active'),
('merchants', 'restricted', 'closed'),
('payment_intents', 'requires_payment_method', 'requires_confirmation'),
('payment_intents', 'requires_payment_method', 'requires_action'),
('payment_intents', 'requires_payment_method', 'processing'),
('payment_intents', 'requires_payment_method', 'requires_capture'),
('payment_intents', 'requires_payment_method', 'succeeded'),
('payment_intents', 'requires_payment_method', 'canceled'),
('payment_intents', 'requires_confirmation', 'requires_payment_method'),
('payment_intents', 'requires_confirmation', 'requires_action'),
('payment_intents', 'requires_confirmation', 'processing'),
('payment_intents', 'requires_confirmation', 'requires_capture'),
('payment_intents', 'requires_confirmation', 'succeeded'),
('payment_intents', 'requires_confirmation', 'canceled'),
('payment_intents', 'requires_action', 'requires_payment_method'),
('payment_intents', 'requires_action', 'processing'),
('payment_intents', 'requires_action', 'requires_capture'),
('payment_intents', 'requires_action', 'succeeded'),
('payment_intents', 'requires_action', 'canceled'),
('payment_intents', 'processing', 'requires_payment_method'),
('payment_intents', 'processing', 'requires_capture'),
('payment_intents', 'processing', 'succeeded'),
('payment_intents', 'processing', 'canceled'),
('payment_intents', 'requires_capture', 'succeeded'),
('payment_intents', 'requires_capture', 'canceled'),
('charges', 'pending', 'succeeded'),
('charges', 'pending', 'failed'),
('refunds', 'pending', 'requires_action'),
('refunds', 'pending', 'succeeded'),
('refunds', 'pending', 'failed'),
('refunds', 'pending', 'canceled'),
('refunds', 'requires_action', 'pending'),
('refunds', 'requires_action', 'succeeded'),
('refunds', 'requires_action', 'failed'),
('refunds', 'requires_action', 'canceled'),
('disputes', 'needs_response', 'under_review'),
('disputes', 'needs_response', 'won'),
('disputes', 'needs_response', 'lost'),
('disputes', 'under_review', 'won'),
('disputes', 'under_review', 'lost');

create function rules.require_legal_transition() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from rules.state_transitions as s
        where s.object = tg_table_name and s.from_status = old.status and s.to_status = new.status
    ) then
        raise exception '%: a change from % to % is illegal', tg_table_name, old.status, new.status
            using errcode = 'check_violation';
    end if;
    return new;
end
$$;
comment on function rules.require_legal_transition is
'Refuses a change of status that rules.state_transitions does not list.';

create trigger legal_transition before update of status on core.merchants
for each row when (old.status is distinct from new.status)
execute function rules.require_legal_transition();
create trigger legal_transition before update of status on core.payment_intents
for each row when (old.status is distinct from new.status)
execute function rules.require_legal_transition();
create trigger legal_transition before update of status on core.charges
for each row when (old.status is distinct from new.status)
execute function rules.require_legal_transition();
create trigger legal_transition before update of status on core.refunds
for each row when (old.status is distinct from new.status)
execute function rules.require_legal_transition();
create trigger legal_transition before update of status on core.disputes
for each row when (old.status is distinct from new.status)
execute function rules.require_legal_transition();

create function core.guard_refund() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_live_before bigint := 0;
    v_live_after bigint := 0;
begin
    if tg_op = 'UPDATE' then
        if (new.merchant_id, new.refund_id, new.charge_id, new.currency)
            is distinct from (old.merchant_id, old.refund_id, old.charge_id, old.currency)
        then
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

create function core.refuse_dispute_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception 'dispute % stays with its charge, amount, fee and currency', old.dispute_id
        using errcode = 'check_violation';
end
$$;
comment on function core.refuse_dispute_change is 'Refuses to change what a dispute is about.';

create trigger fixed_terms before update on core.disputes
for each row when (
    (old.merchant_id, old.dispute_id, old.charge_id, old.amount_minor, old.fee_minor, old.currency)
    is distinct from (new.merchant_id, new.dispute_id, new.charge_id, new.amount_minor, new.fee_minor, new.currency)
)
execute function core.refuse_dispute_change();

create trigger no_removal before delete on core.refunds
for each row execute function ledger.refuse_change();
create trigger no_removal before delete on core.disputes
for each row execute function ledger.refuse_change();
