-- The one way into the ledger, and the guards behind it: append-only, balanced per currency, closed periods, hash chain.
create function ledger.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '%.% is append-only: % is refused', tg_table_schema, tg_table_name, tg_op
        using errcode = 'insufficient_privilege';
end
$$;
comment on function ledger.refuse_change is 'Refuses to change or remove rows.';

-- Row triggers reach partitions by themselves, statement triggers do not: each partition needs its own.
create procedure ledger.refuse_truncate(p_table regclass)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'create trigger no_truncate before truncate on %s for each statement execute function ledger.refuse_change()',
        p_table
    );
end
$$;
comment on procedure ledger.refuse_truncate is 'Refuses truncation of this very table or partition.';

create procedure ledger.protect(p_table regclass, p_operations text)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_relation regclass;
begin
    execute format(
        'create trigger no_change before %s on %s for each row execute function ledger.refuse_change()',
        p_operations,
        p_table
    );
    for v_relation in
        select t.relid from pg_partition_tree(p_table) as t
        union
        select p_table
    loop
        call ledger.refuse_truncate(v_relation);
    end loop;
end
$$;
comment on procedure ledger.protect is
'Refuses these operations (for example: update or delete), and truncation, on a table and each of its partitions.';

call ledger.protect('ledger.transactions', 'update or delete');
call ledger.protect('ledger.entries', 'update or delete');
call ledger.protect('ledger.seals', 'update or delete');
call ledger.protect('ledger.closed_periods', 'update or delete');
call ledger.protect('ledger.accounts', 'delete');
call ledger.protect('ledger.holds', 'delete');
call ledger.protect('core.balance_transactions', 'update or delete');
call ledger.protect('core.balance_transaction_fees', 'update or delete');
call ledger.protect('core.payout_balance_transactions', 'update or delete');
call ledger.protect('core.application_fees', 'update or delete');
call ledger.protect('core.currency_conversions', 'update or delete');
call ledger.protect('core.credit_notes', 'update or delete');
call ledger.protect('core.settlements', 'update or delete');

-- A posting writes all of its entries in one statement, so a statement is the unit that must balance.
create function ledger.require_balance() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_unbalanced text;
begin
    select e.ledger_transaction_id into v_unbalanced
    from new_entries as e
    group by e.merchant_id, e.ledger_transaction_id, e.currency
    having sum(case e.side when 'D' then e.amount_minor else -e.amount_minor end) <> 0
    limit 1;
    if found then
        raise exception 'ledger transaction % does not balance', v_unbalanced using errcode = 'check_violation';
    end if;
    return null;
end
$$;
comment on function ledger.require_balance is 'Refuses entries with debits unlike credits in a currency.';

create procedure ledger.guard_entries(p_table regclass)
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    execute format(
        'create trigger balanced after insert on %s referencing new table as new_entries '
        'for each statement execute function ledger.require_balance()',
        p_table
    );
end
$$;
comment on procedure ledger.guard_entries is 'Installs the guard of balance on ledger.entries or one of its partitions.';
call ledger.guard_entries('ledger.entries');
call ledger.guard_entries('ledger.entries_default');

create function ledger.require_entries() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from ledger.entries as e
        where e.merchant_id = new.merchant_id
            and e.ledger_transaction_id = new.ledger_transaction_id
            and e.posted_at = new.posted_at
    ) then
        raise exception 'ledger transaction % has no entries', new.ledger_transaction_id
            using errcode = 'check_violation';
    end if;
    return null;
end
$$;
comment on function ledger.require_entries is 'Refuses, at commit, a transaction without entries.';

create constraint trigger has_entries after insert on ledger.transactions
deferrable initially deferred
for each row execute function ledger.require_entries();

create type ledger.leg as (code text, currency char(3), side char(1), amount_minor bigint, bucket smallint);
comment on type ledger.leg is 'One leg of a posting within a book; without a bucket, a spread account takes that of the bucket key.';

create function ledger.account_id(p_merchant_id text, p_code text, p_currency text, p_bucket integer) returns text
language sql
immutable
parallel safe
return p_merchant_id || ':' || p_code || ':' || p_currency || case when p_bucket > 0 then ':' || p_bucket::text else '' end;
comment on function ledger.account_id is 'The natural id of a ledger account.';

create function core.id_moment(p_moment timestamptz) returns text
language sql
stable
parallel safe
return lpad(to_hex((extract(epoch from p_moment) * 1000)::bigint), 11, '0');
comment on function core.id_moment is
'The first digits of an id: its millisecond. Rows made together lie together in every index, however long the history is.';

create function ledger.bucket_of(p_merchant_id text, p_key text) returns smallint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select (abs(hashtext(p_key)::bigint) % m.ledger_buckets)::smallint
    from core.merchants as m
    where m.merchant_id = p_merchant_id
$$;
comment on function ledger.bucket_of is 'The bucket that a key falls into in the book of a merchant; 0 where accounts are not spread.';

create function ledger.period_of(p_moment timestamptz) returns date
language sql
immutable
parallel safe
return date_trunc('month', p_moment at time zone 'UTC')::date;
comment on function ledger.period_of is 'The accounting period of a moment: the first day of its month (UTC).';

-- Accounts are locked in the order of their ids, always: two postings that share accounts wait for each other, never for
-- ever. An operation that posts more than once locks all accounts of all its postings first.
create function ledger.lock_accounts(
    p_merchant_ids text [], p_codes text [], p_currencies text [], p_buckets integer []
) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    v_ids text [];
    v_present bigint;
    v_account record;
begin
    select array_agg(distinct ledger.account_id(w.merchant_id, w.code, w.currency, w.bucket)) into v_ids
    from unnest(p_merchant_ids, p_codes, p_currencies, p_buckets) as w (merchant_id, code, currency, bucket);
    select count(*) into v_present
    from ledger.accounts as a
    where a.merchant_id = any(p_merchant_ids) and a.ledger_account_id = any(v_ids);

    if v_present < cardinality(v_ids) then
        -- One by one: to make an account is to lock it, and has its turn in the order too.
        for v_account in
            select
                w.merchant_id,
                ledger.account_id(w.merchant_id, w.code, w.currency, w.bucket) as ledger_account_id,
                w.code,
                w.currency,
                w.bucket,
                c.normal_side,
                c.is_protected
            from (
                select distinct u.merchant_id, u.code, u.currency, u.bucket
                from unnest(p_merchant_ids, p_codes, p_currencies, p_buckets) as u (merchant_id, code, currency, bucket)
            ) as w
            left join ledger.account_codes as c on w.code = c.code
            order by ledger_account_id
        loop
            perform from ledger.accounts as a
            where a.merchant_id = v_account.merchant_id and a.ledger_account_id = v_account.ledger_account_id
            for no key update;
            continue when found;
            insert into ledger.accounts (
                merchant_id, ledger_account_id, code, currency, bucket, normal_side, is_protected
            )
            values (
                v_account.merchant_id,
                v_account.ledger_account_id,
                v_account.code,
                v_account.currency,
                v_account.bucket,
                v_account.normal_side,
                v_account.is_protected
            )
            -- No conflict target: with one, a race on the table's other unique index would raise.
            on conflict do nothing;
            perform from ledger.accounts as a
            where a.merchant_id = v_account.merchant_id and a.ledger_account_id = v_account.ledger_account_id
            for no key update;
        end loop;
        return;
    end if;

    perform from ledger.accounts as a
    where a.merchant_id = any(p_merchant_ids) and a.ledger_account_id = any(v_ids)
    order by a.ledger_account_id
    for no key update;
end
$$;
comment on function ledger.lock_accounts is 'Makes missing accounts and locks all, in the order of their ids; the arrays run in parallel.';

create function ledger.post(
    p_merchant_id text,
    p_kind text,
    p_source_id text,
    p_posted_at timestamptz,
    p_legs ledger.leg [],
    p_bucket_key text default null
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_transaction_id text := 'lt_' || core.id_moment(p_posted_at) || left(
        encode(sha256(convert_to(p_merchant_id || ':' || p_kind || ':' || p_source_id, 'UTF8')), 'hex'), 21
    );
    v_period date := ledger.period_of(p_posted_at);
    v_legs ledger.leg [];
    v_account_ids text [];
    v_is_complete boolean;
begin
    -- Shared by postings, exclusive for closing: a period cannot close under a posting that has checked it.
    perform pg_advisory_xact_lock_shared(5432002, v_period - date '2000-01-01');
    if exists (select from ledger.closed_periods as p where p.period = v_period) then
        raise exception 'the accounting period % is closed', to_char(v_period, 'YYYY-MM')
            using errcode = 'check_violation';
    end if;

    select
        array_agg((l.code, l.currency, l.side, l.amount_minor, b.bucket)::ledger.leg order by l.n),
        array_agg(a.ledger_account_id),
        bool_and(a.ledger_account_id is not null)
    into v_legs, v_account_ids, v_is_complete
    from unnest(p_legs) with ordinality as l (code, currency, side, amount_minor, bucket, n)
    left join ledger.account_codes as c on l.code = c.code
    cross join lateral (
        select
            coalesce(
                l.bucket,
                case
                    when c.is_spread then ledger.bucket_of(p_merchant_id, coalesce(p_bucket_key, p_source_id)) else 0
                end
            ) as bucket
    ) as b
    left join ledger.accounts as a
        on
            a.merchant_id = p_merchant_id
            and ledger.account_id(p_merchant_id, l.code, l.currency, b.bucket) = a.ledger_account_id
    where l.amount_minor is distinct from 0;

    insert into ledger.transactions (merchant_id, ledger_transaction_id, kind, source_id, posted_at)
    values (p_merchant_id, v_transaction_id, p_kind, p_source_id, p_posted_at)
    on conflict do nothing;

    if not found then
        select t.ledger_transaction_id into strict v_transaction_id
        from ledger.transactions as t
        where t.merchant_id = p_merchant_id and t.kind = p_kind and t.source_id = p_source_id;

        -- A repetition is fine, another posting under the same name is not.
        if exists (
            with
            given as (
                select l.code, l.currency, l.side, sum(l.amount_minor) as amount_minor
                from unnest(v_legs) as l
                group by l.code, l.currency, l.side
            ),

            posted as (
                select a.code, a.currency, e.side, sum(e.amount_minor) as amount_minor
                from ledger.entries as e
                inner join ledger.accounts as a
                    on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
                where e.merchant_id = p_merchant_id and e.ledger_transaction_id = v_transaction_id
                group by a.code, a.currency, e.side
            )

            (select * from given except all select * from posted)
            union all
            (select * from posted except all select * from given)
        ) then
            raise exception 'posting % of % exists with other legs', p_kind, p_source_id
                using errcode = 'unique_violation';
        end if;
        return v_transaction_id;
    end if;

    if v_is_complete then
        perform from ledger.accounts as a
        where a.merchant_id = p_merchant_id and a.ledger_account_id = any(v_account_ids)
        order by a.ledger_account_id
        for no key update;
    else
        perform ledger.lock_accounts(
            array(select p_merchant_id from unnest(v_legs) as l),
            array(select l.code from unnest(v_legs) as l),
            array(select l.currency::text from unnest(v_legs) as l),
            array(select l.bucket::integer from unnest(v_legs) as l)
        );
    end if;

    with
    legs as (
        select
            l.n,
            l.currency,
            l.side,
            l.amount_minor,
            ledger.account_id(p_merchant_id, l.code, l.currency, l.bucket) as ledger_account_id
        from unnest(v_legs) with ordinality as l (code, currency, side, amount_minor, bucket, n)
    ),

    moved as (
        update ledger.accounts as a
        set
            debits_posted_minor = a.debits_posted_minor + m.debits,
            credits_posted_minor = a.credits_posted_minor + m.credits,
            entry_count = a.entry_count + m.entries
        from (
            select
                l.ledger_account_id,
                coalesce(sum(l.amount_minor) filter (where l.side = 'D'), 0) as debits,
                coalesce(sum(l.amount_minor) filter (where l.side = 'C'), 0) as credits,
                count(*) as entries
            from legs as l
            group by l.ledger_account_id
        ) as m
        where a.merchant_id = p_merchant_id and a.ledger_account_id = m.ledger_account_id
        returning
            a.ledger_account_id,
            a.normal_side,
            a.entry_count - m.entries as entries_before,
            case a.normal_side when 'D' then 1 else -1 end
            * ((a.debits_posted_minor - m.debits) - (a.credits_posted_minor - m.credits)) as balance_before
    )

    insert into ledger.entries (
        merchant_id,
        ledger_transaction_id,
        entry_no,
        ledger_account_id,
        currency,
        side,
        amount_minor,
        account_entry_no,
        balance_after_minor,
        posted_at
    )
    select
        p_merchant_id,
        v_transaction_id,
        l.n,
        m.ledger_account_id,
        l.currency,
        l.side,
        l.amount_minor,
        m.entries_before + row_number() over in_account,
        m.balance_before
        + sum(case when l.side = m.normal_side then l.amount_minor else -l.amount_minor end) over in_account,
        p_posted_at
    from legs as l
    inner join moved as m on l.ledger_account_id = m.ledger_account_id
    window in_account as (partition by m.ledger_account_id order by l.n);

    return v_transaction_id;
end
$$;
comment on function ledger.post is
'Posts one transaction in the book of a merchant: makes missing accounts, locks accounts in order, appends entries with '
'running balances. The same kind and source again returns the posting that exists; with other legs it is refused. '
'Legs of nothing are left out.';

create function ledger.reverse(p_merchant_id text, p_ledger_transaction_id text, p_posted_at timestamptz) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_legs ledger.leg [];
begin
    select array_agg(
        (a.code, a.currency, case e.side when 'D' then 'C' else 'D' end, e.amount_minor, a.bucket)::ledger.leg
        order by e.entry_no
    ) into v_legs
    from ledger.entries as e
    inner join ledger.transactions as t
        on
            e.merchant_id = t.merchant_id
            and e.ledger_transaction_id = t.ledger_transaction_id
            and e.posted_at = t.posted_at
            and t.kind <> 'reversal'
    inner join ledger.accounts as a on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
    where e.merchant_id = p_merchant_id and e.ledger_transaction_id = p_ledger_transaction_id;
    if v_legs is null then
        raise exception 'book % has no posting % that can be reversed', p_merchant_id, p_ledger_transaction_id
            using errcode = 'no_data_found';
    end if;
    return ledger.post(p_merchant_id, 'reversal', p_ledger_transaction_id, p_posted_at, v_legs);
end
$$;
comment on function ledger.reverse is
'Posts the exact opposite of a posting; the same call again returns the reversal that exists.';

create function ledger.hold(
    p_merchant_id text,
    p_source_id text,
    p_debit_code text,
    p_credit_code text,
    p_currency text,
    p_amount_minor bigint,
    p_created_at timestamptz,
    p_expires_at timestamptz
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_bucket smallint := ledger.bucket_of(p_merchant_id, p_source_id);
    v_hold_id text := 'hold_' || left(
        encode(sha256(convert_to(p_merchant_id || ':' || p_source_id, 'UTF8')), 'hex'), 32
    );
    v_debit_bucket integer;
    v_credit_bucket integer;
begin
    select
        max(case when c.is_spread then v_bucket else 0 end) filter (where c.code = p_debit_code),
        max(case when c.is_spread then v_bucket else 0 end) filter (where c.code = p_credit_code)
    into v_debit_bucket, v_credit_bucket
    from ledger.account_codes as c;
    perform ledger.lock_accounts(
        array[p_merchant_id, p_merchant_id],
        array[p_debit_code, p_credit_code],
        array[p_currency, p_currency],
        array[v_debit_bucket, v_credit_bucket]
    );
    insert into ledger.holds (
        merchant_id,
        hold_id,
        source_id,
        debit_account_id,
        credit_account_id,
        currency,
        amount_minor,
        created_at,
        expires_at,
        updated_at
    )
    values (
        p_merchant_id,
        v_hold_id,
        p_source_id,
        ledger.account_id(p_merchant_id, p_debit_code, p_currency, v_debit_bucket),
        ledger.account_id(p_merchant_id, p_credit_code, p_currency, v_credit_bucket),
        p_currency,
        p_amount_minor,
        p_created_at,
        p_expires_at,
        p_created_at
    );
    update ledger.accounts as a
    set
        debits_pending_minor = a.debits_pending_minor + case when a.code = p_debit_code then p_amount_minor else 0 end,
        credits_pending_minor = a.credits_pending_minor + case when a.code = p_credit_code then p_amount_minor else 0 end
    where a.merchant_id = p_merchant_id
        and a.ledger_account_id in (
            ledger.account_id(p_merchant_id, p_debit_code, p_currency, v_debit_bucket),
            ledger.account_id(p_merchant_id, p_credit_code, p_currency, v_credit_bucket)
        );
    return v_hold_id;
end
$$;
comment on function ledger.hold is 'Reserves an amount between two accounts of a book; it counts as pending until it is resolved.';

create procedure ledger.resolve_hold(
    p_merchant_id text, p_source_id text, p_status text, p_posted_minor bigint, p_resolved_at timestamptz
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_hold ledger.holds;
begin
    select * into v_hold
    from ledger.holds as h
    where h.merchant_id = p_merchant_id and h.source_id = p_source_id
    for no key update;
    if not found or v_hold.status <> 'pending' then
        raise exception 'the hold of % is %', p_source_id, coalesce(v_hold.status, 'unknown')
            using errcode = 'check_violation';
    end if;
    update ledger.holds as h
    set status = p_status, posted_minor = p_posted_minor, resolved_at = p_resolved_at, updated_at = p_resolved_at
    where h.merchant_id = p_merchant_id and h.hold_id = v_hold.hold_id;
    perform from ledger.accounts as a
    where a.merchant_id = p_merchant_id and a.ledger_account_id in (v_hold.debit_account_id, v_hold.credit_account_id)
    order by a.ledger_account_id
    for no key update;
    update ledger.accounts as a
    set
        debits_pending_minor = a.debits_pending_minor
        - case when a.ledger_account_id = v_hold.debit_account_id then v_hold.amount_minor else 0 end,
        credits_pending_minor = a.credits_pending_minor
        - case when a.ledger_account_id = v_hold.credit_account_id then v_hold.amount_minor else 0 end
    where a.merchant_id = p_merchant_id and a.ledger_account_id in (v_hold.debit_account_id, v_hold.credit_account_id);
end
$$;
comment on procedure ledger.resolve_hold is
'Ends a hold as posted (in whole or part; the caller posts), voided or expired; a second time is refused.';

create function ledger.available(p_merchant_id text, p_currency text) returns bigint
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select coalesce(sum(a.credits_posted_minor - a.debits_posted_minor - a.debits_pending_minor), 0)::bigint
    from ledger.accounts as a
    where a.merchant_id = p_merchant_id
        and a.ledger_account_id = ledger.account_id(p_merchant_id, 'merchant_available', p_currency, 0)
$$;
comment on function ledger.available is 'What a merchant can spend now, in minor units; below zero it owes.';

create procedure ledger.close_period(p_period date)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    if p_period <> date_trunc('month', p_period)::date or p_period >= ledger.period_of(now()) then
        raise exception 'a period is closed by its first day, after its end: % cannot be', p_period
            using errcode = 'check_violation';
    end if;
    -- Tried until it is free: postings that queued behind a lock that waits could wait for each other.
    while not pg_try_advisory_xact_lock(5432002, p_period - date '2000-01-01') loop
        perform pg_sleep(0.01);
    end loop;
    insert into ledger.closed_periods (period) values (p_period) on conflict do nothing;
    if found then
        call ops.record(null, 'ledger.closed_periods', 'close period', p_period::text, '{}');
    end if;
end
$$;
comment on procedure ledger.close_period is 'Closes a month that has ended, when the postings under way in it are through; for ever.';

create function ledger.trial_balance(p_until timestamptz default 'infinity')
returns table (code text, currency char(3), debits_minor numeric, credits_minor numeric, balance_minor numeric)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select
        a.code,
        a.currency,
        coalesce(sum(e.amount_minor) filter (where e.side = 'D'), 0),
        coalesce(sum(e.amount_minor) filter (where e.side = 'C'), 0),
        sum(case when e.side = a.normal_side then e.amount_minor else -e.amount_minor end)
    from ledger.entries as e
    inner join ledger.accounts as a on e.merchant_id = a.merchant_id and e.ledger_account_id = a.ledger_account_id
    where e.posted_at < p_until
    group by a.code, a.currency
    order by a.currency, a.code
$$;
comment on function ledger.trial_balance is 'Debits, credits and balance (on the normal side) of every account code over all books, before a moment.';

create view ledger.general_ledger with (security_invoker = true) as
select
    e.posted_at,
    t.recorded_at,
    e.merchant_id,
    e.ledger_transaction_id,
    e.entry_no,
    t.kind,
    t.source_id,
    e.ledger_account_id,
    e.currency,
    case e.side when 'D' then e.amount_minor end as debit_minor,
    case e.side when 'C' then e.amount_minor end as credit_minor,
    e.account_entry_no,
    e.balance_after_minor
from ledger.entries as e
inner join ledger.transactions as t
    on e.merchant_id = t.merchant_id and e.ledger_transaction_id = t.ledger_transaction_id;
comment on view ledger.general_ledger is 'One row an entry with its posting, for export.';

-- The hash chain. A seal covers the postings recorded by a range of database transactions, all of which have ended: the
-- range ends at the oldest transaction still running, so nothing can be recorded into it later. Sealing takes no lock that
-- a posting waits for.
create function ledger.content_of(p_from xid8, p_to xid8)
returns table (transaction_count bigint, content_hash bytea)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    with
    recorded as (
        select
            t.merchant_id,
            t.ledger_transaction_id,
            sha256(convert_to(
                concat_ws(
                    '|', t.merchant_id, t.ledger_transaction_id, t.kind, t.source_id, extract(epoch from t.posted_at),
                    string_agg(
                        concat_ws(
                            '|', e.entry_no, e.ledger_account_id, e.currency, e.side, e.amount_minor,
                            e.account_entry_no, e.balance_after_minor
                        ),
                        '|' order by e.entry_no
                    )
                ),
                'UTF8'
            )) as digest
        from ledger.transactions as t
        left join ledger.entries as e
            on
                t.merchant_id = e.merchant_id
                and t.ledger_transaction_id = e.ledger_transaction_id
                and t.posted_at = e.posted_at
        where t.recorded_xid >= p_from and t.recorded_xid < p_to
        group by t.merchant_id, t.ledger_transaction_id
    )

    select
        count(*),
        sha256(coalesce(string_agg(r.digest, ''::bytea order by r.merchant_id, r.ledger_transaction_id), ''::bytea))
    from recorded as r
$$;
comment on function ledger.content_of is 'Count and SHA-256 of the postings recorded by database transactions from p_from up to before p_to.';

create function ledger.seal_hash(
    p_seal_no bigint, p_from xid8, p_to xid8, p_count bigint, p_content_hash bytea, p_previous_hash bytea
) returns bytea
language sql
immutable
parallel safe
return sha256(
    convert_to(p_seal_no || '|' || p_from || '|' || p_to || '|' || p_count || '|', 'UTF8')
    || p_content_hash || p_previous_hash
);
comment on function ledger.seal_hash is 'SHA-256 over what a seal says and the seal before it.';

create function ledger.broken_seals() returns table (seal_no bigint)
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
    select s.seal_no
    from (
        select
            seals.*,
            lag(seals.seal_hash, 1, '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea)
                over in_order as hash_before,
            lag(seals.to_xid) over in_order as xid_before,
            row_number() over in_order as place
        from ledger.seals as seals
        window in_order as (order by seals.seal_no)
    ) as s
    cross join lateral ledger.content_of(s.from_xid, s.to_xid) as c
    where s.seal_no <> s.place
        or s.from_xid is distinct from coalesce(s.xid_before, s.from_xid)
        or s.previous_hash <> s.hash_before
        or s.transaction_count <> c.transaction_count
        or s.content_hash <> c.content_hash
        or s.seal_hash <> ledger.seal_hash(
            s.seal_no, s.from_xid, s.to_xid, s.transaction_count, s.content_hash, s.previous_hash
        )
$$;
comment on function ledger.broken_seals is 'The seals whose content, place or link no longer is what was sealed.';

revoke all on all functions in schema ledger from public;
revoke all on all procedures in schema ledger from public;
