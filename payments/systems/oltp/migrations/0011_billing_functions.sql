-- Invoices and subscriptions: what is billed, and how it is settled through the same payments as everything else.
create function core.create_invoice(
    p_merchant_id text,
    p_customer_id text,
    p_currency text,
    p_lines jsonb,
    p_subscription_id text default null,
    p_discount_minor bigint default 0,
    p_billing_reason text default 'manual',
    p_invoice_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice_id text := coalesce(p_invoice_id, core.new_id('in'));
    v_subtotal bigint;
begin
    select sum((l.value ->> 'amount_minor')::bigint) into v_subtotal from jsonb_array_elements(p_lines) as l;
    insert into core.invoices (
        merchant_id,
        invoice_id,
        customer_id,
        subscription_id,
        currency,
        status,
        billing_reason,
        subtotal_minor,
        discount_minor,
        total_minor,
        due_at,
        created_at,
        updated_at
    )
    values (
        p_merchant_id,
        v_invoice_id,
        p_customer_id,
        p_subscription_id,
        p_currency,
        'draft',
        p_billing_reason,
        v_subtotal,
        p_discount_minor,
        v_subtotal - p_discount_minor,
        p_created_at + interval '30 days',
        p_created_at,
        p_created_at
    )
    on conflict do nothing;
    if not found then
        if not exists (
            select from core.invoices as i
            where i.merchant_id = p_merchant_id
                and i.invoice_id = v_invoice_id
                and i.customer_id = p_customer_id
                and i.currency = p_currency
                and i.subtotal_minor = v_subtotal
        ) then
            raise exception 'invoice % exists with other terms', v_invoice_id using errcode = 'unique_violation';
        end if;
        return v_invoice_id;
    end if;
    insert into core.invoice_lines (
        merchant_id,
        invoice_line_id,
        invoice_id,
        price_id,
        subscription_item_id,
        description,
        quantity,
        amount_minor,
        currency,
        period_start_at,
        period_end_at,
        created_at
    )
    select
        p_merchant_id,
        core.new_id('il'),
        v_invoice_id,
        l.value ->> 'price_id',
        l.value ->> 'subscription_item_id',
        l.value ->> 'description',
        coalesce((l.value ->> 'quantity')::bigint, 1),
        (l.value ->> 'amount_minor')::bigint,
        p_currency,
        coalesce((l.value ->> 'period_start_at')::timestamptz, p_created_at),
        coalesce((l.value ->> 'period_end_at')::timestamptz, p_created_at),
        p_created_at
    from jsonb_array_elements(p_lines) as l;
    return v_invoice_id;
end
$$;
comment on function core.create_invoice is
'Drafts an invoice from lines ([{"description", "amount_minor", "quantity", "price_id", ...}]) and returns its id.';

create function core.require_lines() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if new.subtotal_minor is distinct from (
        select coalesce(sum(l.amount_minor), 0)
        from core.invoice_lines as l
        where l.merchant_id = new.merchant_id and l.invoice_id = new.invoice_id and l.currency = new.currency
    ) then
        raise exception 'the lines of invoice % do not add up', new.invoice_id using errcode = 'check_violation';
    end if;
    return null;
end
$$;
comment on function core.require_lines is 'Refuses, at commit, an invoice that is not the sum of its lines.';

create constraint trigger lines_add_up after insert or update of subtotal_minor on core.invoices
deferrable initially deferred
for each row execute function core.require_lines();

create function core.finalize_invoice(
    p_merchant_id text, p_invoice_id text, p_finalized_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice core.invoices;
begin
    select * into v_invoice
    from core.invoices as i
    where i.merchant_id = p_merchant_id and i.invoice_id = p_invoice_id
    for no key update;
    if v_invoice.status <> 'draft' then
        return p_invoice_id;
    end if;
    update core.invoices as i
    set
        -- An invoice of nothing is paid as soon as it is final.
        status = case when i.total_minor = 0 then 'paid' else 'open' end,
        paid_at = case when i.total_minor = 0 then p_finalized_at end,
        finalized_at = p_finalized_at,
        updated_at = p_finalized_at
    where i.merchant_id = p_merchant_id and i.invoice_id = p_invoice_id
    returning i.* into v_invoice;
    if not found then
        raise exception 'invoice % of merchant % does not exist', p_invoice_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    if v_invoice.status = 'open' then
        perform ledger.post(p_merchant_id, 'invoice', p_invoice_id, p_finalized_at, array[
            ('invoice_receivable', v_invoice.currency, 'D', v_invoice.total_minor, null),
            ('invoice_clearing', v_invoice.currency, 'C', v_invoice.total_minor, null)
        ]::ledger.leg []);
    end if;
    perform ops.emit(p_merchant_id, 'invoice.finalized', p_invoice_id, v_invoice.version, to_jsonb(v_invoice));
    return p_invoice_id;
end
$$;
comment on function core.finalize_invoice is 'Makes a draft final: its lines stand, and the customer owes its total.';

create procedure core.settle_invoice(p_invoice core.invoices, p_source_id text, p_amount_minor bigint, p_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform ledger.post(p_invoice.merchant_id, 'invoice_settled', p_source_id, p_at, array[
        ('invoice_clearing', p_invoice.currency, 'D', p_amount_minor, null),
        ('invoice_receivable', p_invoice.currency, 'C', p_amount_minor, null)
    ]::ledger.leg []);
end
$$;
comment on procedure core.settle_invoice is 'Books that an amount of an invoice is no longer owed.';

create function core.locked_invoice(p_merchant_id text, p_invoice_id text) returns core.invoices
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice core.invoices;
begin
    select * into v_invoice
    from core.invoices as i
    where i.merchant_id = p_merchant_id and i.invoice_id = p_invoice_id
    for no key update;
    if not found then
        raise exception 'invoice % of merchant % does not exist', p_invoice_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    return v_invoice;
end
$$;
comment on function core.locked_invoice is 'The invoice, locked.';

create procedure core.give_up_intent(p_invoice core.invoices, p_at timestamptz)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    perform core.cancel_payment_intent(i.merchant_id, i.payment_intent_id, 'abandoned', p_at)
    from core.payment_intents as i
    where i.merchant_id = p_invoice.merchant_id
        and i.payment_intent_id = p_invoice.payment_intent_id
        and i.status not in ('succeeded', 'canceled');
end
$$;
comment on procedure core.give_up_intent is 'Cancels the intent that an invoice no longer needs, so that nobody pays it a second time.';

create function core.pay_invoice(
    p_merchant_id text,
    p_invoice_id text,
    p_payment_method_id text,
    p_failure_code text default null,
    p_paid_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice core.invoices := core.locked_invoice(p_merchant_id, p_invoice_id);
    v_rest bigint := v_invoice.total_minor - v_invoice.amount_paid_minor - v_invoice.amount_credited_minor;
    v_intent_id text := v_invoice.payment_intent_id;
    v_charge_id text;
begin
    if v_invoice.status = 'paid' then
        return (
            select c.charge_id
            from core.charges as c
            where c.merchant_id = p_merchant_id
                and c.payment_intent_id = v_invoice.payment_intent_id
                and c.status = 'succeeded'
        );
    end if;
    if v_invoice.status not in ('open', 'uncollectible') then
        raise exception 'invoice % is %, it cannot be paid', p_invoice_id, v_invoice.status
            using errcode = 'check_violation';
    end if;
    -- One intent gathers the attempts, until a credit note changes what is left to pay.
    if v_intent_id is null or (
        select i.amount_minor <> v_rest
        from core.payment_intents as i
        where i.merchant_id = p_merchant_id and i.payment_intent_id = v_intent_id
    ) then
        call core.give_up_intent(v_invoice, p_paid_at);
        v_intent_id := core.create_payment_intent(
            p_merchant_id,
            v_invoice.customer_id,
            v_rest,
            v_invoice.currency,
            p_payment_method_id,
            p_created_at => p_paid_at
        );
    end if;
    -- The accounts of the invoice before those of the charge, as where an invoice is finalized and paid in one go.
    perform ledger.lock_accounts(
        array[p_merchant_id, p_merchant_id],
        array['invoice_clearing', 'invoice_receivable'],
        array_fill(v_invoice.currency::text, array[2]),
        array[0, 0]
    );
    v_charge_id := core.confirm_payment_intent(
        p_merchant_id, v_intent_id, p_payment_method_id, p_failure_code, p_confirmed_at => p_paid_at
    );
    update core.invoices as i
    set
        payment_intent_id = v_intent_id,
        status = case when p_failure_code is null then 'paid' else i.status end,
        amount_paid_minor = i.amount_paid_minor + case when p_failure_code is null then v_rest else 0 end,
        paid_at = case when p_failure_code is null then p_paid_at end,
        updated_at = p_paid_at
    where i.merchant_id = p_merchant_id and i.invoice_id = p_invoice_id
    returning i.* into v_invoice;
    if p_failure_code is null then
        call core.settle_invoice(v_invoice, p_invoice_id, v_rest, p_paid_at);
        -- A subscription that waited for its money goes on when nothing of it is owed any more.
        update core.subscriptions as s
        set status = 'active', updated_at = p_paid_at
        where
            s.merchant_id = p_merchant_id
            and s.subscription_id = v_invoice.subscription_id
            and s.status in ('past_due', 'unpaid')
            and not exists (
                select from core.invoices as i
                where i.merchant_id = s.merchant_id and i.subscription_id = s.subscription_id and i.status = 'open'
            );
    end if;
    perform ops.emit(
        p_merchant_id,
        case when p_failure_code is null then 'invoice.paid' else 'invoice.payment_failed' end,
        p_invoice_id,
        v_invoice.version,
        to_jsonb(v_invoice)
    );
    return v_charge_id;
end
$$;
comment on function core.pay_invoice is 'Attempts to pay what is left of an invoice and returns the id of the charge; a failure code makes the attempt fail.';

create function core.credit_invoice(
    p_merchant_id text,
    p_invoice_id text,
    p_amount_minor bigint,
    p_reason text,
    p_credit_note_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id text := coalesce(p_credit_note_id, core.new_id('cn'));
    v_invoice core.invoices := core.locked_invoice(p_merchant_id, p_invoice_id);
    v_rest bigint := v_invoice.total_minor - v_invoice.amount_paid_minor - v_invoice.amount_credited_minor;
    v_refund_id text;
begin
    if exists (
        select from core.credit_notes as c
        where c.merchant_id = p_merchant_id and c.credit_note_id = v_id
    ) then
        if not exists (
            select from core.credit_notes as c
            where c.merchant_id = p_merchant_id
                and c.credit_note_id = v_id
                and c.invoice_id = p_invoice_id
                and c.amount_minor = p_amount_minor
        ) then
            raise exception 'credit note % exists with other terms', v_id using errcode = 'unique_violation';
        end if;
        return v_id;
    end if;
    if v_invoice.status = 'paid' then
        v_refund_id := core.refund_charge(
            p_merchant_id,
            (
                select c.charge_id
                from core.charges as c
                where c.merchant_id = p_merchant_id
                    and c.payment_intent_id = v_invoice.payment_intent_id
                    and c.status = 'succeeded'
            ),
            p_amount_minor,
            'requested_by_customer',
            p_refunded_at => p_created_at
        );
    elsif v_invoice.status in ('open', 'uncollectible') and p_amount_minor between 1 and v_rest then
        update core.invoices as i
        set
            amount_credited_minor = i.amount_credited_minor + p_amount_minor,
            status = case when p_amount_minor = v_rest then 'paid' else i.status end,
            paid_at = case when p_amount_minor = v_rest then p_created_at end,
            updated_at = p_created_at
        where i.merchant_id = p_merchant_id and i.invoice_id = p_invoice_id;
        call core.settle_invoice(v_invoice, v_id, p_amount_minor, p_created_at);
        call core.give_up_intent(v_invoice, p_created_at);
    else
        raise exception 'invoice % is % with % left to credit, not %',
            p_invoice_id, v_invoice.status, v_rest, p_amount_minor
            using errcode = 'check_violation';
    end if;
    insert into core.credit_notes (
        merchant_id, credit_note_id, invoice_id, refund_id, amount_minor, currency, reason, created_at
    )
    values (
        p_merchant_id, v_id, p_invoice_id, v_refund_id, p_amount_minor, v_invoice.currency, p_reason, p_created_at
    );
    return v_id;
end
$$;
comment on function core.credit_invoice is 'Reduces what is due of an invoice, or refunds a part of one that was paid, and returns the id of the credit note.';

create function core.end_invoice(
    p_merchant_id text, p_invoice_id text, p_status text, p_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_invoice core.invoices := core.locked_invoice(p_merchant_id, p_invoice_id);
begin
    if p_status is null or p_status not in ('void', 'uncollectible') then
        raise exception 'an invoice is made void or uncollectible, not %', p_status using errcode = 'check_violation';
    end if;
    if v_invoice.status = p_status then
        return p_invoice_id;
    end if;
    update core.invoices as i
    set status = p_status, updated_at = p_at
    where i.merchant_id = p_merchant_id and i.invoice_id = p_invoice_id;
    if p_status = 'void' then
        call core.give_up_intent(v_invoice, p_at);
        call core.settle_invoice(
            v_invoice,
            p_invoice_id,
            v_invoice.total_minor - v_invoice.amount_paid_minor - v_invoice.amount_credited_minor,
            p_at
        );
    end if;
    return p_invoice_id;
end
$$;
comment on function core.end_invoice is 'Makes an open invoice void (nothing is owed), or marks it as uncollectible (it still is).';

create function core.create_subscription(
    p_merchant_id text,
    p_customer_id text,
    p_price_id text,
    p_quantity bigint,
    p_payment_method_id text,
    p_coupon_id text default null,
    p_subscription_id text default null,
    p_created_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id text := coalesce(p_subscription_id, core.new_id('sub'));
    v_price core.prices;
    v_coupon core.coupons;
begin
    select * into v_price
    from core.prices as p
    where p.merchant_id = p_merchant_id and p.price_id = p_price_id and p.is_active;
    if not found or v_price.billing_interval is null then
        raise exception 'price % of merchant % is not a recurring one', p_price_id, p_merchant_id
            using errcode = 'check_violation';
    end if;
    insert into core.subscriptions (
        merchant_id, subscription_id, customer_id, payment_method_id, currency, status, created_at, updated_at
    )
    values (
        p_merchant_id,
        v_id,
        p_customer_id,
        p_payment_method_id,
        v_price.currency,
        'incomplete',
        p_created_at,
        p_created_at
    )
    on conflict do nothing;
    if not found then
        return v_id;
    end if;
    -- The first period has length nothing: billing moves it on.
    insert into core.subscription_items (
        merchant_id,
        subscription_item_id,
        subscription_id,
        price_id,
        quantity,
        current_period_start_at,
        current_period_end_at,
        created_at,
        updated_at
    )
    values (
        p_merchant_id,
        core.new_id('si'),
        v_id,
        p_price_id,
        p_quantity,
        p_created_at - interval '1 microsecond',
        p_created_at,
        p_created_at,
        p_created_at
    );
    if p_coupon_id is not null then
        select * into v_coupon
        from core.coupons as c
        where c.merchant_id = p_merchant_id and c.coupon_id = p_coupon_id and c.is_valid;
        if not found or (v_coupon.currency is not null and v_coupon.currency <> v_price.currency) then
            raise exception 'coupon % of merchant % cannot be used here', p_coupon_id, p_merchant_id
                using errcode = 'check_violation';
        end if;
        insert into core.discounts (
            merchant_id, discount_id, coupon_id, subscription_id, starts_at, ends_at, created_at
        )
        values (
            p_merchant_id,
            core.new_id('di'),
            p_coupon_id,
            v_id,
            p_created_at,
            case v_coupon.duration
                when 'once' then p_created_at + interval '1 second'
                when 'repeating' then p_created_at + make_interval(months => v_coupon.duration_in_months)
            end,
            p_created_at
        );
    end if;
    return v_id;
end
$$;
comment on function core.create_subscription is 'Begins a subscription and returns its id; bill_subscription bills its first and every further period.';

create function core.bill_subscription(
    p_merchant_id text,
    p_subscription_id text,
    p_failure_code text default null,
    p_billed_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_subscription core.subscriptions;
    v_lines jsonb;
    v_subtotal bigint;
    v_discount bigint;
    v_invoice_id text;
begin
    select * into v_subscription
    from core.subscriptions as s
    where s.merchant_id = p_merchant_id and s.subscription_id = p_subscription_id
    for no key update;
    if not found or v_subscription.status not in ('incomplete', 'trialing', 'active', 'past_due') then
        raise exception 'subscription % of merchant % is not billed', p_subscription_id, p_merchant_id
            using errcode = 'check_violation';
    end if;
    with
    moved as (
        update core.subscription_items as i
        set
            current_period_start_at = i.current_period_end_at,
            current_period_end_at = i.current_period_end_at
            + p.interval_count * ('1 ' || p.billing_interval)::interval,
            updated_at = p_billed_at
        from core.prices as p
        where
            i.merchant_id = p_merchant_id
            and i.subscription_id = p_subscription_id
            and i.current_period_end_at <= p_billed_at
            and p.merchant_id = i.merchant_id
            and p.price_id = i.price_id
        returning i.*, p.unit_amount_minor
    )

    select
        jsonb_agg(jsonb_build_object(
            'description', m.quantity || ' x ' || m.price_id,
            'price_id', m.price_id,
            'subscription_item_id', m.subscription_item_id,
            'quantity', m.quantity,
            'amount_minor', m.quantity * m.unit_amount_minor,
            'period_start_at', m.current_period_start_at,
            'period_end_at', m.current_period_end_at
        )),
        sum(m.quantity * m.unit_amount_minor)
    into v_lines, v_subtotal
    from moved as m;
    if v_lines is null then
        return null;
    end if;
    select least(coalesce(sum(
        coalesce(c.amount_off_minor, floor(v_subtotal::numeric * c.percent_off_basis_points / 10000)::bigint)
    ), 0), v_subtotal)::bigint into v_discount
    from core.discounts as d
    inner join core.coupons as c on d.merchant_id = c.merchant_id and d.coupon_id = c.coupon_id
    where
        d.merchant_id = p_merchant_id
        and d.subscription_id = p_subscription_id
        and d.starts_at <= p_billed_at
        and (d.ends_at is null or d.ends_at > p_billed_at);
    v_invoice_id := core.create_invoice(
        p_merchant_id,
        v_subscription.customer_id,
        v_subscription.currency,
        v_lines,
        p_subscription_id,
        v_discount,
        case v_subscription.status when 'incomplete' then 'subscription_create' else 'subscription_cycle' end,
        p_created_at => p_billed_at
    );
    perform core.finalize_invoice(p_merchant_id, v_invoice_id, p_billed_at);
    if v_subtotal > v_discount then
        perform core.pay_invoice(
            p_merchant_id, v_invoice_id, v_subscription.payment_method_id, p_failure_code, p_billed_at
        );
    end if;
    update core.subscriptions as s
    set
        status = case
            when p_failure_code is null or v_subtotal = v_discount then 'active'
            when s.status = 'incomplete' then 'incomplete'
            else 'past_due'
        end,
        updated_at = p_billed_at
    where s.merchant_id = p_merchant_id and s.subscription_id = p_subscription_id;
    return v_invoice_id;
end
$$;
comment on function core.bill_subscription is
'Bills the next period of a subscription that is due: invoice, payment, ledger; returns the invoice, or null when none is due.';

create function core.cancel_subscription(
    p_merchant_id text, p_subscription_id text, p_canceled_at timestamptz default now()
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    update core.subscriptions as s
    set status = 'canceled', canceled_at = p_canceled_at, ended_at = p_canceled_at, updated_at = p_canceled_at
    where s.merchant_id = p_merchant_id and s.subscription_id = p_subscription_id and s.status <> 'canceled';
    if not found and not exists (
        select from core.subscriptions as s
        where s.merchant_id = p_merchant_id and s.subscription_id = p_subscription_id
    ) then
        raise exception 'subscription % of merchant % does not exist', p_subscription_id, p_merchant_id
            using errcode = 'no_data_found';
    end if;
    return p_subscription_id;
end
$$;
comment on function core.cancel_subscription is 'Ends a subscription now.';
