-- Payments happen through these functions: each does the whole of one event in the caller's transaction, or nothing.
-- An id given by the caller makes a call idempotent: the same call again returns the same id, other terms are refused.
-- Locks are taken in one order everywhere: objects (intent, then charge, then its refunds and disputes), then ledger accounts.
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
    select p_prefix || '_' || core.id_moment(clock_timestamp()) || right(replace(gen_random_uuid()::text, '-', ''), 21)
$$;
comment on function core.new_id is 'A fresh id with the prefix of its kind: the millisecond, then 78 random bits.';

create procedure core.move_balance(
    p_merchant_id text,
    p_type text,
    p_source_id text,
    p_amount_minor bigint,
    p_fees jsonb,
    p_currency text,
    p_available_at timestamptz,
    p_created_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id text := 'txn_' || core.id_moment(p_created_at) || left(
        encode(sha256(convert_to(concat_ws(':', p_merchant_id, p_type, p_source_id), 'UTF8')), 'hex'), 21
    );
    v_fee bigint;
begin
    select coalesce(sum(f.value::bigint), 0) into v_fee from jsonb_each_text(p_fees) as f;
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
        v_id,
        p_type,
        p_source_id,
        p_amount_minor,
        v_fee,
        p_amount_minor - v_fee,
        p_currency,
        p_available_at,
        p_created_at
    );
    insert into core.balance_transaction_fees (merchant_id, balance_transaction_id, type, amount_minor, currency)
    select p_merchant_id, v_id, f.key, f.value::bigint, p_currency
    from jsonb_each_text(p_fees) as f
    where f.value::bigint <> 0;
end
$$;
comment on procedure core.move_balance is
'Records one balance transaction with the parts of its fee ({"processing_fee": 30}); net is the amount less the fee.';

create function core.require_fees() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if new.fee_minor is distinct from (
        select coalesce(sum(f.amount_minor), 0)
        from core.balance_transaction_fees as f
        where f.merchant_id = new.merchant_id and f.balance_transaction_id = new.balance_transaction_id
    ) then
        raise exception 'the fees of balance transaction % do not add up', new.balance_transaction_id
            using errcode = 'check_violation';
    end if;
    return null;
end
$$;
comment on function core.require_fees is 'Refuses, at commit, a fee that is not the sum of its parts.';

create constraint trigger fees_add_up after insert on core.balance_transactions
deferrable initially deferred
for each row when (new.fee_minor <> 0)
execute function core.require_fees();

create function core.active_merchant(p_merchant_id text) returns core.merchants
language plpgsql
stable
set search_path = pg_catalog, pg_temp
as $$
declare
    v_merchant core.merchants;
begin
    select * into v_merchant from core.merchants as m where m.merchant_id = p_merchant_id;
    if v_merchant.status is distinct from 'active' then
        raise exception 'merchant % is %', p_merchant_id, coalesce(v_merchant.status, 'unknown')
            using errcode = 'check_violation';
    end if;
    return v_merchant;
end
$$;
comment on function core.active_merchant is 'The merchant, which must be active.';

create function core.create_payment_intent(
    p_merchant_id text,
    p_customer_id text,
    p_amount_minor bigint,
    p_currency text,
    p_payment_method_id text default null,
    p_payment_intent_id text default null,
    p_created_at timestamptz default now(),
    p_capture_method text default 'automatic',
    p_application_merchant_id text default null,
    p_application_fee_minor bigint default 0
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_intent_id text := coalesce(p_payment_intent_id, core.new_id('pi'));
begin
    perform core.active_merchant(p_merchant_id);
    insert into core.payment_intents (
        merchant_id,
        payment_intent_id,
        customer_id,
        payment_method_id,
        amount_minor,
        currency,
        capture_method,
        application_merchant_id,
        application_fee_minor,
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
        p_capture_method,
        p_application_merchant_id,
        p_application_fee_minor,
        case when p_payment_method_id is null then 'requires_payment_method' else 'requires_confirmation' end,
        p_created_at,
        p_created_at
    )
    on conflict do nothing;

    if not found and not exists (
        select from core.payment_intents as i
        where
            i.merchant_id = p_merchant_id
            and i.payment_intent_id = v_intent_id
            and i.customer_id = p_customer_id
            and i.amount_minor = p_amount_minor
            and i.currency = p_currency
            and i.capture_method = p_capture_method
            and i.application_merchant_id is not distinct from p_application_merchant_id
            and i.application_fee_minor = p_application_fee_minor
    ) then
        raise exception 'payment intent % exists with other terms', v_intent_id using errcode = 'unique_violation';
    end if;
    return v_intent_id;
end
$$;
comment on function core.create_payment_intent is 'Begins a payment and returns the id of its intent.';

create function core.locked_intent(p_merchant_id text, p_payment_intent_id text) returns core.payment_intents
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_intent core.payment_intents;
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
    return v_intent;
end
$$;
comment on function core.locked_intent is 'The intent, locked.';

create procedure core.book_charge(
    p_merchant core.merchants, p_intent core.payment_intents, p_charge_id text, p_amount_minor bigint, p_at timestamptz
)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_fee bigint := core.charge_fee(p_amount_minor, p_merchant.fee_basis_points, p_merchant.fee_fixed_minor);
    v_bucket smallint := ledger.bucket_of(p_merchant.merchant_id, p_charge_id);
    v_application_fee bigint := p_intent.application_fee_minor;
    v_application text := p_intent.application_merchant_id;
begin
    if v_fee + v_application_fee > p_amount_minor then
        raise exception 'the fees of charge % are more than its amount', p_charge_id using errcode = 'check_violation';
    end if;
    if v_application_fee > 0 then
        perform ledger.lock_accounts(
            array_fill(p_merchant.merchant_id, array[4]) || array_fill(v_application, array[2]),
            array[
                'card_receivable', 'merchant_pending', 'fee_revenue', 'transfer_clearing', 'transfer_clearing',
                'merchant_available'
            ],
            array_fill(p_intent.currency::text, array[6]),
            array[v_bucket, v_bucket, v_bucket, 0, 0, 0]
        );
    end if;
    call core.move_balance(
        p_merchant.merchant_id,
        'charge',
        p_charge_id,
        p_amount_minor,
        jsonb_build_object('processing_fee', v_fee, 'application_fee', v_application_fee),
        p_intent.currency,
        core.settlement_moment(p_at),
        p_at
    );
    perform ledger.post(p_merchant.merchant_id, 'charge', p_charge_id, p_at, array[
        ('card_receivable', p_intent.currency, 'D', p_amount_minor, v_bucket),
        ('merchant_pending', p_intent.currency, 'C', p_amount_minor - v_fee, v_bucket),
        ('fee_revenue', p_intent.currency, 'C', v_fee, v_bucket)
    ]::ledger.leg []);
    -- Asked behind the lock on the accounts, which settlement takes before it reads the charges of the day.
    if exists (
        select from core.settlements as s
        where s.merchant_id = p_merchant.merchant_id
            and s.currency = p_intent.currency
            and s.day = (p_at at time zone 'UTC')::date
    ) then
        raise exception 'the charges of % are settled: charge % comes too late', (p_at at time zone 'UTC')::date, p_charge_id
            using errcode = 'check_violation';
    end if;
    if v_application_fee > 0 then
        insert into core.application_fees (
            merchant_id, application_fee_id, charge_id, application_merchant_id, amount_minor, currency, created_at
        )
        values (
            p_merchant.merchant_id,
            'fee_' || left(encode(sha256(convert_to(p_merchant.merchant_id || p_charge_id, 'UTF8')), 'hex'), 32),
            p_charge_id,
            v_application,
            v_application_fee,
            p_intent.currency,
            p_at
        );
        perform ledger.post(p_merchant.merchant_id, 'application_fee', p_charge_id, p_at, array[
            ('merchant_pending', p_intent.currency, 'D', v_application_fee, v_bucket),
            ('transfer_clearing', p_intent.currency, 'C', v_application_fee, 0)
        ]::ledger.leg []);
        call core.move_balance(
            v_application, 'application_fee', p_charge_id, v_application_fee, '{}', p_intent.currency, p_at, p_at
        );
        perform ledger.post(v_application, 'application_fee_in', p_charge_id, p_at, array[
            ('transfer_clearing', p_intent.currency, 'D', v_application_fee, 0),
            ('merchant_available', p_intent.currency, 'C', v_application_fee, 0)
        ]::ledger.leg []);
    end if;
end
$$;
comment on procedure core.book_charge is 'Books a captured charge: balance transaction, ledger, and the application fee.';

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
    v_merchant core.merchants;
    v_intent core.payment_intents;
    v_existing core.charges;
    v_method_id text;
    v_is_manual boolean;
begin
    v_intent := core.locked_intent(p_merchant_id, p_payment_intent_id);
    select * into v_existing
    from core.charges as c
    where c.merchant_id = p_merchant_id and c.charge_id = v_charge_id;
    if found then
        if v_existing.payment_intent_id <> p_payment_intent_id
            or (
                v_existing.failure_code is distinct from p_failure_code
                -- A charge that was authorized, and voided since, is the same charge.
                and not (
                    p_failure_code is null
                    and v_existing.failure_code in ('authorization_voided', 'authorization_expired')
                )
            )
            or v_existing.payment_method_id <> coalesce(p_payment_method_id, v_existing.payment_method_id)
        then
            raise exception 'charge % exists with other terms', v_charge_id using errcode = 'unique_violation';
        end if;
        return v_charge_id;
    end if;

    if v_intent.status not in ('requires_payment_method', 'requires_confirmation', 'requires_action') then
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
    v_merchant := core.active_merchant(p_merchant_id);
    v_is_manual := v_intent.capture_method = 'manual';

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
        captured_at,
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
        case when p_failure_code is null and not v_is_manual then v_intent.amount_minor else 0 end,
        v_intent.currency,
        case when p_failure_code is not null then 'failed' when v_is_manual then 'pending' else 'succeeded' end,
        p_failure_code,
        case when p_failure_code is null and not v_is_manual then p_confirmed_at end,
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
        amount_received_minor = case when p_failure_code is null and not v_is_manual then i.amount_minor else 0 end,
        amount_capturable_minor = case when p_failure_code is null and v_is_manual then i.amount_minor else 0 end,
        status = case
            when p_failure_code is not null then 'requires_payment_method'
            when v_is_manual then 'requires_capture'
            else 'succeeded'
        end,
        updated_at = p_confirmed_at
    where i.merchant_id = p_merchant_id and i.payment_intent_id = p_payment_intent_id;

    -- The ledger comes last: what it locks, other payments of the merchant wait for.
    perform core.emit_charge(p_merchant_id, v_charge_id);
    if p_failure_code is null and v_is_manual then
        perform ledger.hold(
            p_merchant_id,
            v_charge_id,
            'card_receivable',
            'merchant_pending',
            v_intent.currency,
            v_intent.amount_minor,
            p_confirmed_at,
            p_confirmed_at + interval '7 days'
        );
    elsif p_failure_code is null then
        call core.book_charge(v_merchant, v_intent, v_charge_id, v_intent.amount_minor, p_confirmed_at);
    end if;
    return v_charge_id;
end
$$;
comment on function core.confirm_payment_intent is
'Attempts the payment and returns the id of the charge: a failure code makes a failed charge and no posting; without one '
'the charge succeeds with its balance transaction and posting, or is authorized where capture is manual.';

create function core.emit_charge(p_merchant_id text, p_charge_id text) returns text
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_charge core.charges;
begin
    select * into strict v_charge
    from core.charges as c
    where c.merchant_id = p_merchant_id and c.charge_id = p_charge_id;
    return ops.emit(
        p_merchant_id,
        'charge.' || case
            when v_charge.status = 'succeeded' and v_charge.amount_refunded_minor > 0 then 'refunded'
            else v_charge.status
        end,
        p_charge_id,
        v_charge.version,
        to_jsonb(v_charge)
    );
end
$$;
comment on function core.emit_charge is 'Tells other systems how a charge stands.';

create function core.capture_payment_intent(
    p_merchant_id text,
    p_payment_intent_id text,
    p_amount_minor bigint default null,
    p_captured_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_intent core.payment_intents := core.locked_intent(p_merchant_id, p_payment_intent_id);
    v_merchant core.merchants;
    v_charge_id text;
    v_amount bigint := coalesce(p_amount_minor, v_intent.amount_capturable_minor);
begin
    if v_intent.status = 'succeeded' and v_intent.capture_method = 'manual' then
        -- Captured before: with the same amount this is a repetition.
        if v_intent.amount_received_minor <> coalesce(p_amount_minor, v_intent.amount_received_minor) then
            raise exception 'payment intent % was captured with another amount', p_payment_intent_id
                using errcode = 'unique_violation';
        end if;
        select c.charge_id into strict v_charge_id
        from core.charges as c
        where c.merchant_id = p_merchant_id and c.payment_intent_id = p_payment_intent_id and c.status = 'succeeded';
        return v_charge_id;
    end if;
    if v_intent.status <> 'requires_capture' then
        raise exception 'payment intent % is %, it cannot be captured', p_payment_intent_id, v_intent.status
            using errcode = 'check_violation';
    end if;
    if v_amount not between 1 and v_intent.amount_capturable_minor then
        raise exception 'payment intent % has % to capture, not %',
            p_payment_intent_id, v_intent.amount_capturable_minor, v_amount
            using errcode = 'check_violation';
    end if;
    select * into strict v_merchant from core.merchants as m where m.merchant_id = p_merchant_id;
    update core.charges as c
    set
        status = 'succeeded',
        amount_captured_minor = v_amount,
        captured_at = p_captured_at,
        updated_at = p_captured_at
    where c.merchant_id = p_merchant_id and c.payment_intent_id = p_payment_intent_id and c.status = 'pending'
    returning c.charge_id into strict v_charge_id;
    update core.payment_intents as i
    set
        status = 'succeeded',
        amount_received_minor = v_amount,
        amount_capturable_minor = 0,
        updated_at = p_captured_at
    where i.merchant_id = p_merchant_id and i.payment_intent_id = p_payment_intent_id;
    perform core.emit_charge(p_merchant_id, v_charge_id);
    call ledger.resolve_hold(p_merchant_id, v_charge_id, 'posted', v_amount, p_captured_at);
    call core.book_charge(v_merchant, v_intent, v_charge_id, v_amount, p_captured_at);
    return v_charge_id;
end
$$;
comment on function core.capture_payment_intent is
'Captures an authorized payment, by default whole, once; what is not captured is released.';

create function core.cancel_payment_intent(
    p_merchant_id text,
    p_payment_intent_id text,
    p_reason text default 'requested_by_customer',
    p_canceled_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_intent core.payment_intents := core.locked_intent(p_merchant_id, p_payment_intent_id);
    v_charge_id text;
begin
    if v_intent.status = 'canceled' then
        return p_payment_intent_id;
    end if;
    update core.payment_intents as i
    set
        status = 'canceled',
        amount_capturable_minor = 0,
        cancellation_reason = p_reason,
        canceled_at = p_canceled_at,
        updated_at = p_canceled_at
    where i.merchant_id = p_merchant_id and i.payment_intent_id = p_payment_intent_id;
    update core.charges as c
    set
        status = 'failed',
        failure_code = case p_reason when 'expired' then 'authorization_expired' else 'authorization_voided' end,
        updated_at = p_canceled_at
    where c.merchant_id = p_merchant_id and c.payment_intent_id = p_payment_intent_id and c.status = 'pending'
    returning c.charge_id into v_charge_id;
    if v_intent.status = 'requires_capture' then
        call ledger.resolve_hold(
            p_merchant_id,
            v_charge_id,
            case p_reason when 'expired' then 'expired' else 'voided' end,
            0,
            p_canceled_at
        );
    end if;
    if v_charge_id is not null then
        perform core.emit_charge(p_merchant_id, v_charge_id);
    end if;
    return p_payment_intent_id;
end
$$;
comment on function core.cancel_payment_intent is 'Gives a payment up; an authorization is voided and releases what it holds.';

create function core.expire_authorizations(p_until timestamptz default now()) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_expired bigint := 0;
    v_row record;
begin
    for v_row in
        select i.merchant_id, i.payment_intent_id
        from ledger.holds as h
        inner join core.charges as c on h.merchant_id = c.merchant_id and h.source_id = c.charge_id
        inner join core.payment_intents as i
            on c.merchant_id = i.merchant_id and c.payment_intent_id = i.payment_intent_id
        where h.status = 'pending' and h.expires_at <= p_until and i.status = 'requires_capture'
        -- In the order of the accounts that they release, as every other posting locks them.
        order by h.debit_account_id
        for no key update of i skip locked
    loop
        perform core.cancel_payment_intent(v_row.merchant_id, v_row.payment_intent_id, 'expired', p_until);
        v_expired := v_expired + 1;
    end loop;
    return v_expired;
end
$$;
comment on function core.expire_authorizations is 'Cancels what was authorized and not captured in time; returns how many.';

create function core.settle_day(p_merchant_id text, p_currency text, p_day date) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_start timestamptz := p_day::timestamp at time zone 'UTC';
    v_settled_at timestamptz := core.settlement_moment(v_start);
    v_legs ledger.leg [];
    v_amount bigint;
    v_net bigint;
begin
    if v_settled_at > now() then
        raise exception 'charges of % settle at %', p_day, v_settled_at using errcode = 'check_violation';
    end if;
    if not exists (
        select from core.balance_transactions as b
        where
            b.merchant_id = p_merchant_id
            and b.currency = p_currency
            and b.type = 'charge'
            and b.created_at >= v_start
            and b.created_at < v_start + interval '24 hours'
    ) then
        return null;
    end if;
    -- All buckets before the charges are read: none can be booked into the day meanwhile, and days in a row lock the same.
    perform ledger.lock_accounts(
        array_agg(p_merchant_id), array_agg(w.code), array_agg(p_currency), array_agg(w.bucket)
    )
    from (
        select c.code, b.bucket
        from ledger.account_codes as c
        cross join (
            select generate_series(0, m.ledger_buckets - 1) as bucket
            from core.merchants as m
            where m.merchant_id = p_merchant_id
        ) as b
        where c.code in ('card_receivable', 'merchant_pending')
        union
        select a.code, a.bucket::integer
        from ledger.accounts as a
        where a.merchant_id = p_merchant_id
            and a.code in ('card_receivable', 'merchant_pending')
            and a.currency = p_currency
        union
        values ('bank', 0), ('merchant_available', 0)
    ) as w;
    -- Per bucket, as the charges were booked.
    with
    booked as (
        select
            a.code,
            a.bucket,
            sum(case when e.side = a.normal_side then e.amount_minor else -e.amount_minor end)::bigint as amount
        from ledger.entries as e
        inner join ledger.transactions as t
            on e.merchant_id = t.merchant_id and e.ledger_transaction_id = t.ledger_transaction_id
        inner join ledger.accounts as a on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
        where
            e.merchant_id = p_merchant_id
            and e.posted_at >= v_start
            and e.posted_at < v_start + interval '24 hours'
            and e.currency = p_currency
            and t.kind in ('charge', 'application_fee')
            and a.code in ('merchant_pending', 'card_receivable')
        group by a.code, a.bucket
    )

    select
        sum(b.amount) filter (where b.code = 'card_receivable'),
        sum(b.amount) filter (where b.code = 'merchant_pending'),
        array_agg(
            (b.code, p_currency, case b.code when 'card_receivable' then 'C' else 'D' end, b.amount, b.bucket)::ledger.leg
            order by b.code, b.bucket
        )
    into v_amount, v_net, v_legs
    from booked as b;
    insert into core.settlements (merchant_id, currency, day, amount_minor, net_minor, settled_at)
    values (p_merchant_id, p_currency, p_day, v_amount, coalesce(v_net, 0), v_settled_at)
    on conflict do nothing;
    return ledger.post(
        p_merchant_id,
        'settlement',
        p_currency || ':' || p_day,
        v_settled_at,
        array[
            ('bank', p_currency, 'D', v_amount, null),
            ('merchant_available', p_currency, 'C', coalesce(v_net, 0), null)
        ]::ledger.leg [] || v_legs
    );
end
$$;
comment on function core.settle_day is
'Settles the charges of one merchant, currency and day (UTC) and returns the posting; null when there were none.';

create function core.settle_due(p_merchant_id text, p_currency text, p_until timestamptz default now()) returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_day date;
    v_settled bigint := 0;
begin
    for v_day in
        select distinct (b.created_at at time zone 'UTC')::date
        from core.balance_transactions as b
        where
            b.merchant_id = p_merchant_id
            and b.currency = p_currency
            and b.type = 'charge'
            and b.available_at <= p_until
            and b.created_at >= coalesce(
                (
                    select (max(s.day) + 1)::timestamp at time zone 'UTC'
                    from core.settlements as s
                    where s.merchant_id = p_merchant_id and s.currency = p_currency
                ),
                '-infinity'::timestamptz
            )
        order by 1
    loop
        perform core.settle_day(p_merchant_id, p_currency, v_day);
        v_settled := v_settled + 1;
    end loop;
    return v_settled;
end
$$;
comment on function core.settle_due is 'Settles every day of a merchant and currency that is due; returns how many.';

create function core.locked_charge(p_merchant_id text, p_charge_id text) returns core.charges
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_charge core.charges;
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
    return v_charge;
end
$$;
comment on function core.locked_charge is 'The charge, locked.';

create function core.left_of(p_charge core.charges) returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select p_charge.amount_captured_minor - p_charge.amount_refunded_minor - coalesce(sum(d.amount_minor), 0)::bigint
    from core.disputes as d
    where d.merchant_id = p_charge.merchant_id
        and d.charge_id = p_charge.charge_id
        and d.status in ('needs_response', 'under_review', 'lost')
$$;
comment on function core.left_of is 'What of a charge is neither refunded nor disputed.';

create function core.refund_charge(
    p_merchant_id text,
    p_charge_id text,
    p_amount_minor bigint default null,
    p_reason text default 'requested_by_customer',
    p_refund_id text default null,
    p_refunded_at timestamptz default now(),
    p_is_settled boolean default true
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_refund_id text := coalesce(p_refund_id, core.new_id('re'));
    v_charge core.charges := core.locked_charge(p_merchant_id, p_charge_id);
    v_existing core.refunds;
    v_rest bigint;
    v_amount bigint;
begin
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

    v_rest := core.left_of(v_charge);
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
        'pending',
        p_reason,
        p_refunded_at,
        p_refunded_at
    );
    if p_is_settled then
        -- Both postings of a settled refund: their accounts in one go.
        perform ledger.lock_accounts(
            array_fill(p_merchant_id, array[3]),
            array['merchant_available', 'refund_clearing', 'bank'],
            array_fill(v_charge.currency::text, array[3]),
            array[0, 0, 0]
        );
    end if;
    call core.move_balance(
        p_merchant_id, 'refund', v_refund_id, -v_amount, '{}', v_charge.currency, p_refunded_at, p_refunded_at
    );
    perform ledger.post(p_merchant_id, 'refund', v_refund_id, p_refunded_at, array[
        ('merchant_available', v_charge.currency, 'D', v_amount, null),
        ('refund_clearing', v_charge.currency, 'C', v_amount, null)
    ]::ledger.leg []);
    if p_is_settled then
        perform core.close_refund(p_merchant_id, v_refund_id, 'succeeded', null, p_refunded_at);
    end if;
    perform core.emit_charge(p_merchant_id, p_charge_id);
    return v_refund_id;
end
$$;
comment on function core.refund_charge is
'Refunds an amount, by default all that is left, and returns the id; never more than captured less refunded less '
'disputed. A refund that is not settled at once is pending until close_refund.';

create function core.close_refund(
    p_merchant_id text,
    p_refund_id text,
    p_outcome text,
    p_failure_reason text default null,
    p_closed_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_charge_id text;
    v_refund core.refunds;
begin
    if p_outcome is null or p_outcome not in ('succeeded', 'failed') then
        raise exception 'a refund ends succeeded or failed, not %', p_outcome using errcode = 'check_violation';
    end if;
    -- The charge first, as everywhere.
    select r.charge_id into v_charge_id
    from core.refunds as r
    where r.merchant_id = p_merchant_id and r.refund_id = p_refund_id;
    if not found then
        raise exception 'refund % of merchant % does not exist', p_refund_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    perform core.locked_charge(p_merchant_id, v_charge_id);
    select * into strict v_refund
    from core.refunds as r
    where r.merchant_id = p_merchant_id and r.refund_id = p_refund_id
    for no key update;
    if v_refund.status = p_outcome then
        return p_refund_id;
    end if;
    update core.refunds as r
    set status = p_outcome, failure_reason = p_failure_reason, updated_at = p_closed_at
    where r.merchant_id = p_merchant_id and r.refund_id = p_refund_id;
    if p_outcome = 'succeeded' then
        perform ledger.post(p_merchant_id, 'refund_settled', p_refund_id, p_closed_at, array[
            ('refund_clearing', v_refund.currency, 'D', v_refund.amount_minor, null),
            ('bank', v_refund.currency, 'C', v_refund.amount_minor, null)
        ]::ledger.leg []);
    else
        call core.move_balance(
            p_merchant_id,
            'refund_failure',
            p_refund_id,
            v_refund.amount_minor,
            '{}',
            v_refund.currency,
            p_closed_at,
            p_closed_at
        );
        -- A refund can fail after it seemed to succeed: then the money comes back from the bank.
        perform ledger.post(p_merchant_id, 'refund_failed', p_refund_id, p_closed_at, array[
            (
                case v_refund.status when 'succeeded' then 'bank' else 'refund_clearing' end,
                v_refund.currency,
                'D',
                v_refund.amount_minor,
                null
            ),
            ('merchant_available', v_refund.currency, 'C', v_refund.amount_minor, null)
        ]::ledger.leg []);
    end if;
    return p_refund_id;
end
$$;
comment on function core.close_refund is 'Ends a pending refund as succeeded, or any refund as failed: then the merchant has the amount again.';

create procedure core.take_disputed(p_dispute core.disputes, p_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    call core.move_balance(
        p_dispute.merchant_id,
        'dispute',
        p_dispute.dispute_id,
        -p_dispute.amount_minor,
        jsonb_build_object('dispute_fee', p_dispute.fee_minor),
        p_dispute.currency,
        p_at,
        p_at
    );
    perform ledger.post(p_dispute.merchant_id, 'dispute', p_dispute.dispute_id, p_at, array[
        ('merchant_available', p_dispute.currency, 'D', p_dispute.amount_minor + p_dispute.fee_minor, null),
        ('dispute_clearing', p_dispute.currency, 'C', p_dispute.amount_minor, null),
        ('fee_revenue', p_dispute.currency, 'C', p_dispute.fee_minor, null)
    ]::ledger.leg []);
end
$$;
comment on procedure core.take_disputed is 'Takes amount and fee of a dispute from the merchant.';

create function core.open_dispute(
    p_merchant_id text,
    p_charge_id text,
    p_reason text,
    p_amount_minor bigint default null,
    p_fee_minor bigint default 0,
    p_dispute_id text default null,
    p_opened_at timestamptz default now(),
    p_is_inquiry boolean default false
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_dispute_id text := coalesce(p_dispute_id, core.new_id('dp'));
    v_charge core.charges := core.locked_charge(p_merchant_id, p_charge_id);
    v_dispute core.disputes;
    v_rest bigint;
    v_amount bigint;
begin
    select * into v_dispute
    from core.disputes as d
    where d.merchant_id = p_merchant_id and d.dispute_id = v_dispute_id;
    if found then
        if v_dispute.charge_id <> p_charge_id
            or v_dispute.amount_minor <> coalesce(p_amount_minor, v_dispute.amount_minor)
            or v_dispute.fee_minor <> p_fee_minor
        then
            raise exception 'dispute % exists with other terms', v_dispute_id using errcode = 'unique_violation';
        end if;
        return v_dispute_id;
    end if;

    v_rest := core.left_of(v_charge);
    v_amount := coalesce(p_amount_minor, v_rest);
    if v_amount > v_rest or v_rest <= 0 then
        raise exception 'charge % has % left to dispute, not %', p_charge_id, greatest(v_rest, 0), v_amount
            using errcode = 'check_violation';
    end if;

    insert into core.disputes (
        merchant_id,
        dispute_id,
        charge_id,
        amount_minor,
        fee_minor,
        currency,
        status,
        reason,
        evidence_due_at,
        created_at,
        updated_at
    )
    values (
        p_merchant_id,
        v_dispute_id,
        p_charge_id,
        v_amount,
        p_fee_minor,
        v_charge.currency,
        case when p_is_inquiry then 'warning_needs_response' else 'needs_response' end,
        p_reason,
        p_opened_at + interval '14 days',
        p_opened_at,
        p_opened_at
    )
    returning * into v_dispute;
    if not p_is_inquiry then
        call core.take_disputed(v_dispute, p_opened_at);
    end if;
    perform ops.emit(p_merchant_id, 'dispute.created', v_dispute_id, v_dispute.version, to_jsonb(v_dispute));
    return v_dispute_id;
end
$$;
comment on function core.open_dispute is
'Opens a dispute over an amount, by default all that is left of the charge; takes amount and fee from the merchant, '
'unless the bank only inquires.';

create function core.advance_dispute(
    p_merchant_id text, p_dispute_id text, p_status text, p_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_charge core.charges;
    v_charge_id text;
    v_dispute core.disputes;
    v_was_inquiry boolean;
begin
    select d.charge_id into v_charge_id
    from core.disputes as d
    where d.merchant_id = p_merchant_id and d.dispute_id = p_dispute_id;
    if not found then
        raise exception 'dispute % of merchant % does not exist', p_dispute_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    v_charge := core.locked_charge(p_merchant_id, v_charge_id);
    select * into strict v_dispute
    from core.disputes as d
    where d.merchant_id = p_merchant_id and d.dispute_id = p_dispute_id
    for no key update;
    if v_dispute.status = p_status then
        return p_dispute_id;
    end if;
    v_was_inquiry := v_dispute.status like 'warning%';
    if v_was_inquiry and p_status = 'needs_response' and core.left_of(v_charge) < v_dispute.amount_minor then
        raise exception 'charge % has less left than dispute % is about', v_charge_id, p_dispute_id
            using errcode = 'check_violation';
    end if;
    update core.disputes as d
    set
        status = p_status,
        closed_at = case when p_status in ('won', 'lost', 'warning_closed', 'prevented') then p_at end,
        updated_at = p_at
    where d.merchant_id = p_merchant_id and d.dispute_id = p_dispute_id
    returning d.* into v_dispute;
    if v_was_inquiry and p_status = 'needs_response' then
        call core.take_disputed(v_dispute, p_at);
    elsif p_status = 'won' then
        call core.move_balance(
            p_merchant_id, 'dispute_reversal', p_dispute_id, v_dispute.amount_minor, '{}', v_dispute.currency, p_at, p_at
        );
    end if;
    if p_status in ('won', 'lost') then
        perform ledger.post(p_merchant_id, 'dispute_' || p_status, p_dispute_id, p_at, array[
            ('dispute_clearing', v_dispute.currency, 'D', v_dispute.amount_minor, null),
            (
                case p_status when 'won' then 'merchant_available' else 'bank' end,
                v_dispute.currency,
                'C',
                v_dispute.amount_minor,
                null
            )
        ]::ledger.leg []);
        perform ops.emit(p_merchant_id, 'dispute.closed', p_dispute_id, v_dispute.version, to_jsonb(v_dispute));
    end if;
    return p_dispute_id;
end
$$;
comment on function core.advance_dispute is
'Moves a dispute on: under_review, won (the merchant gets the amount back), lost (it is paid out), or an inquiry on to '
'needs_response (amount and fee are taken) or its end.';

create function core.close_dispute(
    p_merchant_id text, p_dispute_id text, p_outcome text, p_closed_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_outcome is null or p_outcome not in ('won', 'lost') then
        raise exception 'a dispute ends won or lost, not %', p_outcome using errcode = 'check_violation';
    end if;
    return core.advance_dispute(p_merchant_id, p_dispute_id, p_outcome, p_closed_at);
end
$$;
comment on function core.close_dispute is 'Ends a dispute as won or lost.';
