-- The door for applications: one function, with idempotency keys that behave as Stripe documents them.
create schema api;

create function api.answer(p_merchant_id text, p_operation text, p jsonb) returns jsonb
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_id text;
    v_object jsonb;
begin
    case p_operation
        when 'payment_intents.create' then
            v_id := core.create_payment_intent(
                p_merchant_id,
                p ->> 'customer_id',
                (p ->> 'amount_minor')::bigint,
                p ->> 'currency',
                p ->> 'payment_method_id',
                p_capture_method => coalesce(p ->> 'capture_method', 'automatic'),
                p_application_merchant_id => p ->> 'application_merchant_id',
                p_application_fee_minor => coalesce((p ->> 'application_fee_minor')::bigint, 0)
            );
        when 'payment_intents.confirm' then
            v_id := core.confirm_payment_intent(
                p_merchant_id,
                p ->> 'payment_intent_id',
                p ->> 'payment_method_id',
                p ->> 'failure_code',
                p_ip_country => p ->> 'ip_country',
                p_ip_city => p ->> 'ip_city',
                p_ip_network_token => p ->> 'ip_network_token',
                p_device_id => p ->> 'device_id',
                p_device_type => p ->> 'device_type',
                p_anomaly_score => (p ->> 'anomaly_score')::numeric
            );
        when 'payment_intents.capture' then
            v_id := core.capture_payment_intent(
                p_merchant_id, p ->> 'payment_intent_id', (p ->> 'amount_minor')::bigint
            );
        when 'payment_intents.cancel' then
            v_id := core.cancel_payment_intent(
                p_merchant_id, p ->> 'payment_intent_id', coalesce(p ->> 'reason', 'requested_by_customer')
            );
        when 'refunds.create' then
            v_id := core.refund_charge(
                p_merchant_id,
                p ->> 'charge_id',
                (p ->> 'amount_minor')::bigint,
                coalesce(p ->> 'reason', 'requested_by_customer')
            );
        when 'disputes.create' then
            v_id := core.open_dispute(
                p_merchant_id,
                p ->> 'charge_id',
                p ->> 'reason',
                (p ->> 'amount_minor')::bigint,
                coalesce((p ->> 'fee_minor')::bigint, 0)
            );
        when 'disputes.close' then
            v_id := core.close_dispute(p_merchant_id, p ->> 'dispute_id', p ->> 'outcome');
        when 'payouts.create' then
            v_id := core.create_payout(p_merchant_id, p ->> 'currency', (p ->> 'amount_minor')::bigint);
        when 'transfers.create' then
            v_id := core.create_transfer(
                p_merchant_id, p ->> 'destination_merchant_id', (p ->> 'amount_minor')::bigint, p ->> 'currency'
            );
        when 'transfers.reverse' then
            v_id := core.reverse_transfer(p_merchant_id, p ->> 'transfer_id');
        when 'topups.create' then
            v_id := core.create_topup(p_merchant_id, (p ->> 'amount_minor')::bigint, p ->> 'currency');
        when 'currency_conversions.create' then
            v_id := core.convert_currency(
                p_merchant_id,
                p ->> 'from_currency',
                (p ->> 'amount_minor')::bigint,
                p ->> 'to_currency',
                (p ->> 'rate')::numeric,
                coalesce((p ->> 'fee_basis_points')::integer, 0)
            );
        when 'invoices.create' then
            v_id := core.create_invoice(p_merchant_id, p ->> 'customer_id', p ->> 'currency', p -> 'lines');
        when 'invoices.finalize' then
            v_id := core.finalize_invoice(p_merchant_id, p ->> 'invoice_id');
        when 'invoices.pay' then
            v_id := core.pay_invoice(
                p_merchant_id, p ->> 'invoice_id', p ->> 'payment_method_id', p ->> 'failure_code'
            );
        when 'invoices.void' then
            v_id := core.end_invoice(p_merchant_id, p ->> 'invoice_id', 'void');
        when 'credit_notes.create' then
            v_id := core.credit_invoice(
                p_merchant_id, p ->> 'invoice_id', (p ->> 'amount_minor')::bigint, p ->> 'reason'
            );
        when 'subscriptions.create' then
            v_id := core.create_subscription(
                p_merchant_id,
                p ->> 'customer_id',
                p ->> 'price_id',
                coalesce((p ->> 'quantity')::bigint, 1),
                p ->> 'payment_method_id',
                p ->> 'coupon_id'
            );
            perform core.bill_subscription(p_merchant_id, v_id, p ->> 'failure_code');
        when 'subscriptions.cancel' then
            v_id := core.cancel_subscription(p_merchant_id, p ->> 'subscription_id');
        else
            raise exception 'there is no operation %', p_operation using errcode = 'invalid_parameter_value';
    end case;

    -- A decline is an answer, not an error: it is kept and repeated like any other.
    select to_jsonb(c) into v_object
    from core.charges as c
    where c.merchant_id = p_merchant_id and c.charge_id = v_id;
    return jsonb_build_object(
        'status', case when v_object ->> 'status' = 'failed' then 402 else 200 end,
        'id', v_id,
        'failure_code', v_object ->> 'failure_code'
    );
end
$$;
comment on function api.answer is 'Does one operation and returns what the caller is told: {"status", "id", "failure_code"}.';

create function api.call(
    p_merchant_id text, p_idempotency_key text, p_operation text, p_parameters jsonb
) returns jsonb
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    -- jsonb has one text for equal values, whatever the order of keys and the spacing were.
    v_hash bytea := sha256(convert_to(p_operation || p_parameters::text, 'UTF8'));
    v_known ops.idempotency_keys;
    v_response jsonb;
begin
    if p_merchant_id is distinct from ops.current_merchant() then
        raise exception 'this session may not act for that merchant' using errcode = 'insufficient_privilege';
    end if;
    if p_idempotency_key is null then
        return api.answer(p_merchant_id, p_operation, p_parameters);
    end if;
    -- Never waits: the second of two concurrent requests hears that the first is under way.
    if not pg_try_advisory_xact_lock(hashtextextended(p_merchant_id || ' ' || p_idempotency_key, 0)) then
        raise exception 'another request with this idempotency key is under way'
            using errcode = 'lock_not_available', hint = 'Send the same request again later.';
    end if;
    select * into v_known
    from ops.idempotency_keys as k
    where k.merchant_id = p_merchant_id and k.idempotency_key = p_idempotency_key;
    if found then
        if v_known.operation is distinct from p_operation or v_known.request_hash is distinct from v_hash then
            raise exception 'this idempotency key was used with other parameters'
                using errcode = 'invalid_parameter_value', hint = 'Use a new key for a new request.';
        end if;
        return v_known.response || jsonb_build_object('is_replayed', true);
    end if;
    perform set_config('app.request_id', p_idempotency_key, true);
    v_response := api.answer(p_merchant_id, p_operation, p_parameters);
    insert into ops.idempotency_keys (merchant_id, idempotency_key, operation, request_hash, response)
    values (p_merchant_id, p_idempotency_key, p_operation, v_hash, v_response);
    return v_response || jsonb_build_object('is_replayed', false);
end
$$;
comment on function api.call is
'Does an operation once per idempotency key. The same key and parameters get the same answer, declines included; the same '
'key with other parameters is an error (22023); a concurrent use is a conflict (55P03). Answer and effect commit together: '
'unlike Stripe, an operation that raised, or crashed, saves nothing, and its key can be used again.';
