-- What happens to a merchant's balance besides payments: payouts, transfers, top-ups, conversions, manual adjustments.
create function core.create_payout(
    p_merchant_id text,
    p_currency text,
    p_amount_minor bigint default null,
    p_payout_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payout_id text := coalesce(p_payout_id, core.new_id('po'));
    v_existing core.payouts;
    v_available bigint;
    v_due text [];
    v_amount bigint := p_amount_minor;
begin
    perform core.settle_due(p_merchant_id, p_currency, p_created_at);
    -- The lock on the balance puts payouts one behind the other; what each pays out is read behind it.
    perform ledger.lock_accounts(
        array[p_merchant_id, p_merchant_id],
        array['merchant_available', 'payout_in_transit'],
        array[p_currency, p_currency],
        array[0, 0]
    );
    select * into v_existing
    from core.payouts as p
    where p.merchant_id = p_merchant_id and p.payout_id = v_payout_id;
    if found then
        if v_existing.currency <> p_currency
            or v_existing.amount_minor <> coalesce(p_amount_minor, v_existing.amount_minor)
        then
            raise exception 'payout % exists with other terms', v_payout_id using errcode = 'unique_violation';
        end if;
        return v_payout_id;
    end if;
    v_available := ledger.available(p_merchant_id, p_currency);
    if p_amount_minor is null then
        select array_agg(b.balance_transaction_id), coalesce(sum(b.net_minor), 0)::bigint into v_due, v_amount
        from core.balance_transactions as b
        where
            b.merchant_id = p_merchant_id
            and b.currency = p_currency
            and b.available_at <= p_created_at
            -- Of payouts themselves only manual ones count: they took from what an automatic one would pay.
            and (
                b.type <> 'payout'
                or not (
                    select p.is_automatic
                    from core.payouts as p
                    where p.merchant_id = b.merchant_id and p.payout_id = b.source_id
                )
            )
            and not exists (
                select from core.payout_balance_transactions as l
                where l.merchant_id = b.merchant_id and l.balance_transaction_id = b.balance_transaction_id
            );
        if v_amount <= 0 then
            return null;
        end if;
    end if;
    if v_amount > v_available then
        raise exception 'merchant % has % available in %, not %', p_merchant_id, v_available, p_currency, v_amount
            using errcode = 'check_violation';
    end if;

    insert into core.payouts (
        merchant_id, payout_id, amount_minor, currency, status, is_automatic, arrival_date, created_at, updated_at
    )
    values (
        p_merchant_id,
        v_payout_id,
        v_amount,
        p_currency,
        'pending',
        p_amount_minor is null,
        (p_created_at at time zone 'UTC')::date + 2,
        p_created_at,
        p_created_at
    );
    insert into core.payout_balance_transactions (merchant_id, balance_transaction_id, payout_id)
    select p_merchant_id, due.id, v_payout_id
    from unnest(v_due) as due (id);
    call core.move_balance(
        p_merchant_id, 'payout', v_payout_id, -v_amount, '{}', p_currency, p_created_at, p_created_at
    );
    perform ledger.post(p_merchant_id, 'payout', v_payout_id, p_created_at, array[
        ('merchant_available', p_currency, 'D', v_amount, null),
        ('payout_in_transit', p_currency, 'C', v_amount, null)
    ]::ledger.leg []);
    perform ops.emit(
        p_merchant_id, 'payout.created', v_payout_id, 1, jsonb_build_object('amount_minor', v_amount, 'currency', p_currency)
    );
    return v_payout_id;
end
$$;
comment on function core.create_payout is
'Pays an amount out, or without one all balance transactions that are available and not paid out yet; returns the id, or '
'null when there was nothing to pay.';

create function core.advance_payout(
    p_merchant_id text,
    p_payout_id text,
    p_status text,
    p_failure_code text default null,
    p_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_payout core.payouts;
begin
    select * into v_payout
    from core.payouts as p
    where p.merchant_id = p_merchant_id and p.payout_id = p_payout_id
    for no key update;
    if not found then
        raise exception 'payout % of merchant % does not exist', p_payout_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    if v_payout.status = p_status then
        return p_payout_id;
    end if;
    update core.payouts as p
    set status = p_status, failure_code = p_failure_code, updated_at = p_at
    where p.merchant_id = p_merchant_id and p.payout_id = p_payout_id;
    if p_status = 'paid' then
        perform ledger.post(p_merchant_id, 'payout_paid', p_payout_id, p_at, array[
            ('payout_in_transit', v_payout.currency, 'D', v_payout.amount_minor, null),
            ('bank', v_payout.currency, 'C', v_payout.amount_minor, null)
        ]::ledger.leg []);
    elsif p_status in ('failed', 'canceled') then
        call core.move_balance(
            p_merchant_id, 'payout_failure', p_payout_id, v_payout.amount_minor, '{}', v_payout.currency, p_at, p_at
        );
        -- A payout can come back after it seemed to be paid.
        perform ledger.post(p_merchant_id, 'payout_failed', p_payout_id, p_at, array[
            (
                case v_payout.status when 'paid' then 'bank' else 'payout_in_transit' end,
                v_payout.currency,
                'D',
                v_payout.amount_minor,
                null
            ),
            ('merchant_available', v_payout.currency, 'C', v_payout.amount_minor, null)
        ]::ledger.leg []);
    end if;
    if p_status <> 'in_transit' then
        perform ops.emit(
            p_merchant_id,
            'payout.' || p_status,
            p_payout_id,
            v_payout.version + 1,
            jsonb_build_object('amount_minor', v_payout.amount_minor, 'currency', v_payout.currency)
        );
    end if;
    return p_payout_id;
end
$$;
comment on function core.advance_payout is
'Moves a payout on: in_transit, paid, failed or canceled; after the last two the merchant has the amount again.';

create function core.create_transfer(
    p_merchant_id text,
    p_destination_merchant_id text,
    p_amount_minor bigint,
    p_currency text,
    p_transfer_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_transfer_id text := coalesce(p_transfer_id, core.new_id('tr'));
    v_available bigint;
begin
    insert into core.transfers (
        merchant_id, transfer_id, destination_merchant_id, amount_minor, currency, created_at, updated_at
    )
    values (
        p_merchant_id, v_transfer_id, p_destination_merchant_id, p_amount_minor, p_currency, p_created_at, p_created_at
    )
    on conflict do nothing;
    if not found then
        if not exists (
            select from core.transfers as t
            where t.merchant_id = p_merchant_id
                and t.transfer_id = v_transfer_id
                and t.destination_merchant_id = p_destination_merchant_id
                and t.amount_minor = p_amount_minor
                and t.currency = p_currency
        ) then
            raise exception 'transfer % exists with other terms', v_transfer_id using errcode = 'unique_violation';
        end if;
        return v_transfer_id;
    end if;
    perform ledger.lock_accounts(
        array[p_merchant_id, p_merchant_id, p_destination_merchant_id, p_destination_merchant_id],
        array['merchant_available', 'transfer_clearing', 'merchant_available', 'transfer_clearing'],
        array_fill(p_currency, array[4]),
        array[0, 0, 0, 0]
    );
    v_available := ledger.available(p_merchant_id, p_currency);
    if v_available < p_amount_minor then
        raise exception 'merchant % has % available in %, not %', p_merchant_id, v_available, p_currency, p_amount_minor
            using errcode = 'check_violation';
    end if;
    call core.move_balance(
        p_merchant_id, 'transfer', v_transfer_id, -p_amount_minor, '{}', p_currency, p_created_at, p_created_at
    );
    perform ledger.post(p_merchant_id, 'transfer', v_transfer_id, p_created_at, array[
        ('merchant_available', p_currency, 'D', p_amount_minor, null),
        ('transfer_clearing', p_currency, 'C', p_amount_minor, null)
    ]::ledger.leg []);
    call core.move_balance(
        p_destination_merchant_id, 'transfer_in', v_transfer_id, p_amount_minor, '{}', p_currency, p_created_at, p_created_at
    );
    perform ledger.post(p_destination_merchant_id, 'transfer_in', v_transfer_id, p_created_at, array[
        ('transfer_clearing', p_currency, 'D', p_amount_minor, null),
        ('merchant_available', p_currency, 'C', p_amount_minor, null)
    ]::ledger.leg []);
    perform ops.emit(
        p_merchant_id,
        'transfer.created',
        v_transfer_id,
        1,
        jsonb_build_object('amount_minor', p_amount_minor, 'currency', p_currency, 'to', p_destination_merchant_id)
    );
    return v_transfer_id;
end
$$;
comment on function core.create_transfer is 'Moves available funds to another merchant and returns the id.';

create function core.reverse_transfer(
    p_merchant_id text, p_transfer_id text, p_reversed_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_transfer core.transfers;
    v_posting record;
begin
    select * into v_transfer
    from core.transfers as t
    where t.merchant_id = p_merchant_id and t.transfer_id = p_transfer_id
    for no key update;
    if not found then
        raise exception 'transfer % of merchant % does not exist', p_transfer_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    if v_transfer.amount_reversed_minor > 0 then
        return p_transfer_id;
    end if;
    perform ledger.lock_accounts(
        array[p_merchant_id, p_merchant_id, v_transfer.destination_merchant_id, v_transfer.destination_merchant_id],
        array['merchant_available', 'transfer_clearing', 'merchant_available', 'transfer_clearing'],
        array_fill(v_transfer.currency::text, array[4]),
        array[0, 0, 0, 0]
    );
    if ledger.available(v_transfer.destination_merchant_id, v_transfer.currency) < v_transfer.amount_minor then
        raise exception 'merchant % has too little available to give transfer % back',
            v_transfer.destination_merchant_id, p_transfer_id
            using errcode = 'check_violation';
    end if;
    update core.transfers as t
    set amount_reversed_minor = t.amount_minor, updated_at = p_reversed_at
    where t.merchant_id = p_merchant_id and t.transfer_id = p_transfer_id;
    for v_posting in
        select
            t.merchant_id,
            t.ledger_transaction_id,
            case t.kind when 'transfer' then v_transfer.amount_minor else -v_transfer.amount_minor end as amount_minor
        from ledger.transactions as t
        where
            (t.merchant_id = p_merchant_id and t.kind = 'transfer' and t.source_id = p_transfer_id)
            or (
                t.merchant_id = v_transfer.destination_merchant_id
                and t.kind = 'transfer_in'
                and t.source_id = p_transfer_id
            )
    loop
        perform ledger.reverse(v_posting.merchant_id, v_posting.ledger_transaction_id, p_reversed_at);
        call core.move_balance(
            v_posting.merchant_id,
            'reversal',
            p_transfer_id,
            v_posting.amount_minor,
            '{}',
            v_transfer.currency,
            p_reversed_at,
            p_reversed_at
        );
    end loop;
    return p_transfer_id;
end
$$;
comment on function core.reverse_transfer is 'Takes a transfer back, exactly and once.';

create function core.create_topup(
    p_merchant_id text,
    p_amount_minor bigint,
    p_currency text,
    p_topup_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topup_id text := coalesce(p_topup_id, core.new_id('tu'));
begin
    insert into core.topups (merchant_id, topup_id, amount_minor, currency, status, created_at, updated_at)
    values (p_merchant_id, v_topup_id, p_amount_minor, p_currency, 'succeeded', p_created_at, p_created_at)
    on conflict do nothing;
    if not found then
        if not exists (
            select from core.topups as t
            where t.merchant_id = p_merchant_id
                and t.topup_id = v_topup_id
                and t.amount_minor = p_amount_minor
                and t.currency = p_currency
        ) then
            raise exception 'top-up % exists with other terms', v_topup_id using errcode = 'unique_violation';
        end if;
        return v_topup_id;
    end if;
    call core.move_balance(
        p_merchant_id, 'topup', v_topup_id, p_amount_minor, '{}', p_currency, p_created_at, p_created_at
    );
    perform ledger.post(p_merchant_id, 'topup', v_topup_id, p_created_at, array[
        ('bank', p_currency, 'D', p_amount_minor, null),
        ('merchant_available', p_currency, 'C', p_amount_minor, null)
    ]::ledger.leg []);
    perform ops.emit(
        p_merchant_id,
        'topup.succeeded',
        v_topup_id,
        1,
        jsonb_build_object('amount_minor', p_amount_minor, 'currency', p_currency)
    );
    return v_topup_id;
end
$$;
comment on function core.create_topup is 'Adds money that has arrived to the balance of a merchant and returns the id.';

create function core.reverse_topup(
    p_merchant_id text, p_topup_id text, p_reversed_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_topup core.topups;
begin
    select * into v_topup
    from core.topups as t
    where t.merchant_id = p_merchant_id and t.topup_id = p_topup_id
    for no key update;
    if not found then
        raise exception 'top-up % of merchant % does not exist', p_topup_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    if v_topup.status = 'reversed' then
        return p_topup_id;
    end if;
    update core.topups as t
    set status = 'reversed', updated_at = p_reversed_at
    where t.merchant_id = p_merchant_id and t.topup_id = p_topup_id;
    call core.move_balance(
        p_merchant_id, 'reversal', p_topup_id, -v_topup.amount_minor, '{}', v_topup.currency, p_reversed_at, p_reversed_at
    );
    perform ledger.reverse(p_merchant_id, t.ledger_transaction_id, p_reversed_at)
    from ledger.transactions as t
    where t.merchant_id = p_merchant_id and t.kind = 'topup' and t.source_id = p_topup_id;
    return p_topup_id;
end
$$;
comment on function core.reverse_topup is 'Takes a top-up back, exactly and once; the merchant may owe afterwards.';

create function core.convert_currency(
    p_merchant_id text,
    p_from_currency text,
    p_amount_minor bigint,
    p_to_currency text,
    p_rate numeric,
    p_fee_basis_points integer default 0,
    p_currency_conversion_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id text := coalesce(p_currency_conversion_id, core.new_id('fx'));
    v_existing core.currency_conversions;
    v_shift integer;
    v_gross bigint;
    v_fee bigint;
    -- The rate that the conversion keeps is the one it is made at.
    v_rate numeric(20, 10) := p_rate;
begin
    select t.exponent - f.exponent into strict v_shift
    from core.currencies as f
    cross join core.currencies as t
    where f.currency = p_from_currency and t.currency = p_to_currency;
    -- Rounded down: a fraction of a minor unit stays with the side that gives liquidity.
    v_gross := floor(p_amount_minor * v_rate * 10::numeric ^ v_shift)::bigint;
    v_fee := ceil(v_gross::numeric * p_fee_basis_points / 10000)::bigint;

    perform ledger.lock_accounts(
        array_fill(p_merchant_id, array[5]),
        array['merchant_available', 'fx_liquidity', 'merchant_available', 'fx_liquidity', 'fee_revenue'],
        array[p_from_currency, p_from_currency, p_to_currency, p_to_currency, p_to_currency],
        array[0, 0, 0, 0, 0]
    );
    select * into v_existing
    from core.currency_conversions as c
    where c.merchant_id = p_merchant_id and c.currency_conversion_id = v_id;
    if found then
        if (v_existing.from_currency, v_existing.from_amount_minor, v_existing.to_currency, v_existing.rate)
            is distinct from (p_from_currency::char(3), p_amount_minor, p_to_currency::char(3), v_rate)
        then
            raise exception 'conversion % exists with other terms', v_id using errcode = 'unique_violation';
        end if;
        return v_id;
    end if;
    if ledger.available(p_merchant_id, p_from_currency) < p_amount_minor then
        raise exception 'merchant % has less than % available in %', p_merchant_id, p_amount_minor, p_from_currency
            using errcode = 'check_violation';
    end if;
    insert into core.currency_conversions (
        merchant_id,
        currency_conversion_id,
        from_currency,
        from_amount_minor,
        to_currency,
        to_amount_minor,
        fee_minor,
        rate,
        created_at
    )
    values (
        p_merchant_id, v_id, p_from_currency, p_amount_minor, p_to_currency, v_gross, v_fee, v_rate, p_created_at
    );
    call core.move_balance(
        p_merchant_id, 'conversion_out', v_id, -p_amount_minor, '{}', p_from_currency, p_created_at, p_created_at
    );
    call core.move_balance(
        p_merchant_id,
        'conversion_in',
        v_id,
        v_gross,
        jsonb_build_object('conversion_fee', v_fee),
        p_to_currency,
        p_created_at,
        p_created_at
    );
    perform ledger.post(p_merchant_id, 'fx', v_id, p_created_at, array[
        ('merchant_available', p_from_currency, 'D', p_amount_minor, null),
        ('fx_liquidity', p_from_currency, 'C', p_amount_minor, null),
        ('fx_liquidity', p_to_currency, 'D', v_gross, null),
        ('merchant_available', p_to_currency, 'C', v_gross - v_fee, null),
        ('fee_revenue', p_to_currency, 'C', v_fee, 0)
    ]::ledger.leg []);
    return v_id;
end
$$;
comment on function core.convert_currency is
'Converts available funds at a rate (units of the second currency for one of the first, in major units) and returns the id.';

create function core.propose_adjustment(
    p_merchant_id text, p_amount_minor bigint, p_currency text, p_reason text, p_adjustment_id text default null
) returns text
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    insert into core.adjustments (
        merchant_id, adjustment_id, amount_minor, currency, reason, status, proposed_by, created_at, updated_at
    )
    values (
        p_merchant_id,
        coalesce(p_adjustment_id, core.new_id('adj')),
        p_amount_minor,
        p_currency,
        p_reason,
        'proposed',
        session_user,
        now(),
        now()
    )
    returning adjustment_id
$$;
comment on function core.propose_adjustment is 'Proposes a manual correction of a balance; nothing moves until another operator approves it.';

create function core.decide_adjustment(p_merchant_id text, p_adjustment_id text, p_decision text) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_adjustment core.adjustments;
begin
    if p_decision is null or p_decision not in ('approved', 'rejected') then
        raise exception 'an adjustment is approved or rejected, not %', p_decision using errcode = 'check_violation';
    end if;
    select * into v_adjustment
    from core.adjustments as a
    where a.merchant_id = p_merchant_id and a.adjustment_id = p_adjustment_id
    for no key update;
    if v_adjustment.status = p_decision then
        return p_adjustment_id;
    end if;
    -- The table refuses a decision by whoever proposed (maker_is_not_checker): the role that logged in, not a setting.
    update core.adjustments as a
    set status = p_decision, decided_by = session_user, decided_at = now(), updated_at = now()
    where a.merchant_id = p_merchant_id and a.adjustment_id = p_adjustment_id
    returning a.* into v_adjustment;
    if not found then
        raise exception 'adjustment % of merchant % does not exist', p_adjustment_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    if p_decision = 'approved' then
        call core.move_balance(
            p_merchant_id, 'adjustment', p_adjustment_id, v_adjustment.amount_minor, '{}', v_adjustment.currency, now(), now()
        );
        perform ledger.post(p_merchant_id, 'adjustment', p_adjustment_id, now(), array[
            (
                'suspense',
                v_adjustment.currency,
                case when v_adjustment.amount_minor > 0 then 'D' else 'C' end,
                abs(v_adjustment.amount_minor),
                null
            ),
            (
                'merchant_available',
                v_adjustment.currency,
                case when v_adjustment.amount_minor > 0 then 'C' else 'D' end,
                abs(v_adjustment.amount_minor),
                null
            )
        ]::ledger.leg []);
    end if;
    return p_adjustment_id;
end
$$;
comment on function core.decide_adjustment is 'Approves or rejects an adjustment that somebody else proposed; an approved one is posted.';
