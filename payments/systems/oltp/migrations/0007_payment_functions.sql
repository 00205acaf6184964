-- Payments happen through these functions: each does the whole of one event in the caller's transaction, or nothing.
-- An id given by the caller makes a call idempotent: the same call again returns the same id, other terms are refused.
create function core.charge_fee(p_amount_minor bigint, p_basis_points integer, p_fixed_minor bigint) returns bigint
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
    with
    share as (
        select
            div(p_amount_minor::numeric * p_basis_points, 10000) as whole,
            mod(p_amount_minor::numeric * p_basis_points, 10000) as rest
    )

    select
        least(
            whole + case when rest > 5000 or (rest = 5000 and mod(whole, 2) = 1) then 1 else 0 end + p_fixed_minor,
            p_amount_minor
        )::bigint
    from share
$$;
comment on function core.charge_fee is
'Fee of a charge in minor units: the share rounded half to even, plus the fixed part, at most the amount.';

create function core.settlement_moment(p_created_at timestamptz) returns timestamptz
language sql
immutable
strict
parallel safe
set search_path = pg_catalog, pg_temp
as $$
    select (date_trunc('day', p_created_at at time zone 'UTC') + interval '2 days 4 hours') at time zone 'UTC'
$$;
comment on function core.settlement_moment is 'When a charge becomes available: at four (UTC) two days after its day.';

create function core.new_id(p_prefix text) returns text
language sql
volatile
set search_path = pg_catalog, pg_temp
as $$
    select p_prefix || '_' || replace(gen_random_uuid()::text, '-', '')
$$;
comment on function core.new_id is 'A fresh random id with the prefix of its kind.';

create function core.move_balance(
    p_merchant_id text,
    p_type text,
    p_source_id text,
    p_amount_minor bigint,
    p_fee_minor bigint,
    p_currency text,
    p_available_at timestamptz,
    p_created_at timestamptz
) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into core.balance_transactions (
        merchant_id,
        balance_transaction_id,
        type,
        source_id,
        amount_minor,
        fee_minor,
        net_minor,
        currency,
        available_at,
        created_at
    )
    values (
        p_merchant_id,
        'txn_'
        || left(encode(sha256(convert_to(concat_ws(':', p_merchant_id, p_type, p_source_id), 'UTF8')), 'hex'), 32),
        p_type,
        p_source_id,
        p_amount_minor,
        p_fee_minor,
        p_amount_minor - p_fee_minor,
        p_currency,
        p_available_at,
        p_created_at
    )
$$;
comment on function core.move_balance is 'Records one balance transaction; net is the amount less the fee.';

create function core.create_payment_intent(
    p_merchant_id text,
    p_customer_id text,
    p_amount_minor bigint,
    p_currency text,
    p_payment_method_id text default null,
    p_payment_intent_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_intent_id text := coalesce(p_payment_intent_id, core.new_id('pi'));
    v_merchant_status text;
begin
    select m.status into v_merchant_status
    from core.merchants as m
    where m.merchant_id = p_merchant_id
    for share;
    if v_merchant_status is distinct from 'active' then
        raise exception 'merchant % is %', p_merchant_id, coalesce(v_merchant_status, 'unknown')
            using errcode = 'check_violation';
    end if;

    insert into core.payment_intents (
        merchant_id,
        payment_intent_id,
        customer_id,
        payment_method_id,
        amount_minor,
        currency,
        status,
        created_at,
        updated_at
    )
    values (
        p_merchant_id,
        v_intent_id,
        p_customer_id,
        p_payment_method_id,
        p_amount_minor,
        p_currency,
        case when p_payment_method_id is null then 'requires_payment_method' else 'requires_confirmation' end,
        p_created_at,
        p_created_at
    )
    on conflict (merchant_id, payment_intent_id) do nothing;

    if not found and not exists (
        select from core.payment_intents as i
        where
            i.merchant_id = p_merchant_id
            and i.payment_intent_id = v_intent_id
            and i.customer_id = p_customer_id
            and i.amount_minor = p_amount_minor
            and i.currency = p_currency
    ) then
        raise exception 'payment intent % exists with other terms', v_intent_id using errcode = 'unique_violation';
    end if;
    return v_intent_id;
end
$$;
comment on function core.create_payment_intent is 'Begins a payment and returns the id of its intent.';

create function core.confirm_payment_intent(
    p_merchant_id text,
    p_payment_intent_id text,
    p_payment_method_id text default null,
    p_failure_code text default null,
    p_charge_id text default null,
    p_ip_country text default null,
    p_ip_city text default null,
    p_ip_network_token text default null,
    p_device_id text default null,
    p_device_type text default null,
    p_anomaly_score numeric default null,
    p_confirmed_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_charge_id text := coalesce(p_charge_id, core.new_id('ch'));
    v_intent core.payment_intents;
    v_existing core.charges;
    v_method_id text;
    v_merchant core.merchants;
    v_fee bigint;
begin
    -- The lock on the intent puts attempts on it one behind the other.
    select * into v_intent
    from core.payment_intents as i
    where i.merchant_id = p_merchant_id and i.payment_intent_id = p_payment_intent_id
    for no key update;
    if not found then
        raise exception 'payment intent % of merchant % does not exist', p_payment_intent_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;

    select * into v_existing
    from core.charges as c
    where c.merchant_id = p_merchant_id and c.charge_id = v_charge_id;
    if found then
        if v_existing.payment_intent_id <> p_payment_intent_id
            or v_existing.failure_code is distinct from p_failure_code
            or v_existing.payment_method_id <> coalesce(p_payment_method_id, v_existing.payment_method_id)
        then
            raise exception 'charge % exists with other terms', v_charge_id using errcode = 'unique_violation';
        end if;
        return v_charge_id;
    end if;

    if v_intent.status not in ('requires_payment_method', 'requires_confirmation') then
        raise exception 'payment intent % is %, it cannot be confirmed', p_payment_intent_id, v_intent.status
            using errcode = 'check_violation';
    end if;
    v_method_id := coalesce(p_payment_method_id, v_intent.payment_method_id);
    if not exists (
        select from core.payment_methods as m
        where m.merchant_id = p_merchant_id
            and m.payment_method_id = v_method_id
            and m.customer_id = v_intent.customer_id
    ) then
        raise exception 'payment intent % needs a payment method of its customer', p_payment_intent_id
            using errcode = 'check_violation';
    end if;
    select * into strict v_merchant from core.merchants as m where m.merchant_id = p_merchant_id for share;
    if v_merchant.status <> 'active' then
        raise exception 'merchant % is %', p_merchant_id, v_merchant.status using errcode = 'check_violation';
    end if;

    insert into core.charges (
        merchant_id,
        charge_id,
        payment_intent_id,
        customer_id,
        payment_method_id,
        amount_minor,
        amount_captured_minor,
        currency,
        status,
        failure_code,
        ip_country,
        ip_city,
        ip_network_token,
        device_id,
        device_type,
        anomaly_score,
        created_at,
        updated_at
    )
    values (
        p_merchant_id,
        v_charge_id,
        p_payment_intent_id,
        v_intent.customer_id,
        v_method_id,
        v_intent.amount_minor,
        case when p_failure_code is null then v_intent.amount_minor else 0 end,
        v_intent.currency,
        case when p_failure_code is null then 'succeeded' else 'failed' end,
        p_failure_code,
        p_ip_country,
        p_ip_city,
        p_ip_network_token,
        p_device_id,
        p_device_type,
        p_anomaly_score,
        p_confirmed_at,
        p_confirmed_at
    );
    update core.payment_intents as i
    set
        payment_method_id = v_method_id,
        amount_received_minor = case when p_failure_code is null then i.amount_minor else 0 end,
        status = case when p_failure_code is null then 'succeeded' else 'requires_payment_method' end,
        updated_at = p_confirmed_at
    where i.merchant_id = p_merchant_id and i.payment_intent_id = p_payment_intent_id;
    if p_failure_code is not null then
        return v_charge_id;
    end if;

    v_fee := core.charge_fee(v_intent.amount_minor, v_merchant.fee_basis_points, v_merchant.fee_fixed_minor);
    perform core.move_balance(
        p_merchant_id,
        'charge',
        v_charge_id,
        v_intent.amount_minor,
        v_fee,
        v_intent.currency,
        core.settlement_moment(p_confirmed_at),
        p_confirmed_at
    );
    perform ledger.post('charge', v_charge_id, p_confirmed_at, array[
        (null, 'card_receivable', v_intent.currency, 'D', v_intent.amount_minor),
        (p_merchant_id, 'merchant_pending', v_intent.currency, 'C', v_intent.amount_minor - v_fee),
        (null, 'fee_revenue', v_intent.currency, 'C', v_fee)
    ]::ledger.leg []);
    return v_charge_id;
end
$$;
comment on function core.confirm_payment_intent is
'Attempts the payment and returns the id of the charge: a failure code makes a failed charge and no posting, '
'without one the charge succeeds with its balance transaction and its posting.';

create function core.settle_day(p_merchant_id text, p_currency text, p_day date) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_start timestamptz := p_day::timestamp at time zone 'UTC';
    v_settled_at timestamptz := core.settlement_moment(v_start);
    v_amount bigint;
    v_net bigint;
begin
    if v_settled_at > now() then
        raise exception 'charges of % settle at %', p_day, v_settled_at using errcode = 'check_violation';
    end if;
    select sum(b.amount_minor), sum(b.net_minor) into v_amount, v_net
    from core.balance_transactions as b
    where
        b.merchant_id = p_merchant_id
        and b.currency = p_currency
        and b.type = 'charge'
        and b.created_at >= v_start
        and b.created_at < v_start + interval '24 hours';
    if v_amount is null then
        return null;
    end if;
    return ledger.post('settlement', p_merchant_id || ':' || p_currency || ':' || p_day, v_settled_at, array[
        (p_merchant_id, 'merchant_pending', p_currency, 'D', v_net),
        (p_merchant_id, 'merchant_available', p_currency, 'C', v_net),
        (null, 'bank', p_currency, 'D', v_amount),
        (null, 'card_receivable', p_currency, 'C', v_amount)
    ]::ledger.leg []);
end
$$;
comment on function core.settle_day is
'Settles the charges of one merchant, currency and day (UTC) and returns the posting; null when there were none.';

create function core.refund_charge(
    p_merchant_id text,
    p_charge_id text,
    p_amount_minor bigint default null,
    p_reason text default 'requested_by_customer',
    p_refund_id text default null,
    p_refunded_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_refund_id text := coalesce(p_refund_id, core.new_id('re'));
    v_charge core.charges;
    v_existing core.refunds;
    v_disputed bigint;
    v_rest bigint;
    v_amount bigint;
begin
    -- The lock on the charge puts refunds and disputes of it one behind the other.
    select * into v_charge
    from core.charges as c
    where c.merchant_id = p_merchant_id and c.charge_id = p_charge_id
    for no key update;
    if not found then
        raise exception 'charge % of merchant % does not exist', p_charge_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    select * into v_existing
    from core.refunds as r
    where r.merchant_id = p_merchant_id and r.refund_id = v_refund_id;
    if found then
        if v_existing.charge_id <> p_charge_id
            or v_existing.amount_minor <> coalesce(p_amount_minor, v_existing.amount_minor)
        then
            raise exception 'refund % exists with other terms', v_refund_id using errcode = 'unique_violation';
        end if;
        return v_refund_id;
    end if;

    select coalesce(sum(d.amount_minor), 0) into v_disputed
    from core.disputes as d
    where d.merchant_id = p_merchant_id and d.charge_id = p_charge_id and d.status <> 'won';
    v_rest := v_charge.amount_captured_minor - v_charge.amount_refunded_minor - v_disputed;
    v_amount := coalesce(p_amount_minor, v_rest);
    if v_amount > v_rest or v_rest <= 0 then
        raise exception 'charge % has % left to refund, not %', p_charge_id, greatest(v_rest, 0), v_amount
            using errcode = 'check_violation';
    end if;

    insert into core.refunds (
        merchant_id, refund_id, charge_id, amount_minor, currency, status, reason, created_at, updated_at
    )
    values (
        p_merchant_id,
        v_refund_id,
        p_charge_id,
        v_amount,
        v_charge.currency,
        'succeeded',
        p_reason,
        p_refunded_at,
        p_refunded_at
    );
    perform core.move_balance(
        p_merchant_id, 'refund', v_refund_id, -v_amount, 0, v_charge.currency, p_refunded_at, p_refunded_at
    );
    perform ledger.post('refund', v_refund_id, p_refunded_at, array[
        (p_merchant_id, 'merchant_available', v_charge.currency, 'D', v_amount),
        (null, 'bank', v_charge.currency, 'C', v_amount)
    ]::ledger.leg []);
    return v_refund_id;
end
$$;
comment on function core.refund_charge is
'Refunds an amount, by default all that is left, and returns the id; '
'never more than captured less refunded less disputed.';

create function core.open_dispute(
    p_merchant_id text,
    p_charge_id text,
    p_reason text,
    p_amount_minor bigint default null,
    p_fee_minor bigint default 0,
    p_dispute_id text default null,
    p_opened_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_dispute_id text := coalesce(p_dispute_id, core.new_id('dp'));
    v_charge core.charges;
    v_existing core.disputes;
    v_disputed bigint;
    v_rest bigint;
    v_amount bigint;
begin
    select * into v_charge
    from core.charges as c
    where c.merchant_id = p_merchant_id and c.charge_id = p_charge_id
    for no key update;
    if not found then
        raise exception 'charge % of merchant % does not exist', p_charge_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    select * into v_existing
    from core.disputes as d
    where d.merchant_id = p_merchant_id and d.dispute_id = v_dispute_id;
    if found then
        if v_existing.charge_id <> p_charge_id
            or v_existing.amount_minor <> coalesce(p_amount_minor, v_existing.amount_minor)
            or v_existing.fee_minor <> p_fee_minor
        then
            raise exception 'dispute % exists with other terms', v_dispute_id using errcode = 'unique_violation';
        end if;
        return v_dispute_id;
    end if;

    select coalesce(sum(d.amount_minor), 0) into v_disputed
    from core.disputes as d
    where d.merchant_id = p_merchant_id and d.charge_id = p_charge_id and d.status <> 'won';
    v_rest := v_charge.amount_captured_minor - v_charge.amount_refunded_minor - v_disputed;
    v_amount := coalesce(p_amount_minor, v_rest);
    if v_amount > v_rest or v_rest <= 0 then
        raise exception 'charge % has % left to dispute, not %', p_charge_id, greatest(v_rest, 0), v_amount
            using errcode = 'check_violation';
    end if;

    insert into core.disputes (
        merchant_id, dispute_id, charge_id, amount_minor, fee_minor, currency, status, reason, created_at, updated_at
    )
    values (
        p_merchant_id,
        v_dispute_id,
        p_charge_id,
        v_amount,
        p_fee_minor,
        v_charge.currency,
        'needs_response',
        p_reason,
        p_opened_at,
        p_opened_at
    );
    perform core.move_balance(
        p_merchant_id, 'dispute', v_dispute_id, -v_amount, p_fee_minor, v_charge.currency, p_opened_at, p_opened_at
    );
    perform ledger.post('dispute', v_dispute_id, p_opened_at, array[
        (p_merchant_id, 'merchant_available', v_charge.currency, 'D', v_amount + p_fee_minor),
        (null, 'dispute_clearing', v_charge.currency, 'C', v_amount),
        (null, 'fee_revenue', v_charge.currency, 'C', p_fee_minor)
    ]::ledger.leg []);
    return v_dispute_id;
end
$$;
comment on function core.open_dispute is
'Opens a dispute over an amount, by default all that is left of the charge; '
'takes amount and fee from the merchant.';

create function core.close_dispute(
    p_merchant_id text,
    p_dispute_id text,
    p_outcome text,
    p_closed_at timestamptz default now()
) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_dispute core.disputes;
begin
    if p_outcome is null or p_outcome not in ('won', 'lost') then
        raise exception 'a dispute ends won or lost, not %', p_outcome using errcode = 'check_violation';
    end if;
    select * into v_dispute
    from core.disputes as d
    where d.merchant_id = p_merchant_id and d.dispute_id = p_dispute_id
    for no key update;
    if not found then
        raise exception 'dispute % of merchant % does not exist', p_dispute_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    if v_dispute.status = p_outcome then
        return;
    end if;

    update core.disputes as d
    set status = p_outcome, closed_at = p_closed_at, updated_at = p_closed_at
    where d.merchant_id = p_merchant_id and d.dispute_id = p_dispute_id;
    if p_outcome = 'won' then
        perform core.move_balance(
            p_merchant_id,
            'dispute_reversal',
            p_dispute_id,
            v_dispute.amount_minor,
            0,
            v_dispute.currency,
            p_closed_at,
            p_closed_at
        );
    end if;
    perform ledger.post('dispute_' || p_outcome, p_dispute_id, p_closed_at, array[
        (null, 'dispute_clearing', v_dispute.currency, 'D', v_dispute.amount_minor),
        (
            case p_outcome when 'won' then p_merchant_id end,
            case p_outcome when 'won' then 'merchant_available' else 'bank' end,
            v_dispute.currency,
            'C',
            v_dispute.amount_minor
        )
    ]::ledger.leg []);
end
$$;
comment on function core.close_dispute is
'Ends a dispute: won gives the amount back to the merchant, lost pays it out.';

revoke all on function
core.move_balance,
core.create_payment_intent,
core.confirm_payment_intent,
core.settle_day,
core.refund_charge,
core.open_dispute,
core.close_dispute
from public;
