-- The one way into the ledger, and the guards behind it: append-only, balanced per currency when a transaction commits.
alter table ledger.accounts add constraint normal_side_follows_code check (
    normal_side = case when code in ('card_receivable', 'bank') then 'D' else 'C' end
);

create function ledger.refuse_change() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    raise exception '%.% is append-only: % is refused', tg_table_schema, tg_table_name, tg_op
        using errcode = 'insufficient_privilege';
end
$$;
comment on function ledger.refuse_change is 'Refuses to change or remove rows of an append-only table.';

create trigger append_only before update or delete on ledger.transactions
for each row execute function ledger.refuse_change();
create trigger append_only_truncate before truncate on ledger.transactions
for each statement execute function ledger.refuse_change();
create trigger append_only before update or delete on ledger.entries
for each row execute function ledger.refuse_change();
create trigger append_only_truncate before truncate on ledger.entries
for each statement execute function ledger.refuse_change();
create trigger no_removal before delete on ledger.accounts
for each row execute function ledger.refuse_change();
create trigger no_removal_truncate before truncate on ledger.accounts
for each statement execute function ledger.refuse_change();
create trigger append_only before update or delete on core.balance_transactions
for each row execute function ledger.refuse_change();
create trigger append_only_truncate before truncate on core.balance_transactions
for each statement execute function ledger.refuse_change();

create function ledger.require_balance() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
    if not exists (
        select from ledger.entries as e where e.ledger_transaction_id = new.ledger_transaction_id
    ) then
        raise exception 'ledger transaction % has no entries', new.ledger_transaction_id
            using errcode = 'check_violation';
    end if;
    if exists (
        select from ledger.entries as e
        where e.ledger_transaction_id = new.ledger_transaction_id
        group by e.currency
        having sum(case e.side when 'D' then e.amount_minor else -e.amount_minor end) <> 0
    ) then
        raise exception 'ledger transaction % does not balance', new.ledger_transaction_id
            using errcode = 'check_violation';
    end if;
    return null;
end
$$;
comment on function ledger.require_balance is
'Refuses, at commit, a transaction without entries or with debits unlike credits.';

create constraint trigger balanced after insert on ledger.transactions
deferrable initially deferred
for each row execute function ledger.require_balance();
create constraint trigger balanced after insert on ledger.entries
deferrable initially deferred
for each row execute function ledger.require_balance();

create type ledger.leg as (merchant_id text, code text, currency char(3), side char(1), amount_minor bigint);
comment on type ledger.leg is 'One leg of a posting; merchant_id is null for an account of the platform.';

create function ledger.post(p_kind text, p_source_id text, p_posted_at timestamptz, p_legs ledger.leg []) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_transaction_id text := 'lt_' || left(encode(sha256(convert_to(p_kind || ':' || p_source_id, 'UTF8')), 'hex'), 32);
    v_is_new boolean;
begin
    insert into ledger.transactions (ledger_transaction_id, kind, source_id, posted_at)
    values (v_transaction_id, p_kind, p_source_id, p_posted_at)
    -- No conflict target, here and below: with one, a race on the table's other unique index raises.
    on conflict do nothing;
    v_is_new := found;

    if not v_is_new then
        select t.ledger_transaction_id into strict v_transaction_id
        from ledger.transactions as t
        where t.kind = p_kind and t.source_id = p_source_id;

        -- A repetition is fine, another posting under the same name is not.
        if exists (
            with
            given as (
                select
                    coalesce(l.merchant_id, 'platform') || ':' || l.code || ':' || l.currency as ledger_account_id,
                    l.side,
                    l.amount_minor
                from unnest(p_legs) as l
                where l.amount_minor is distinct from 0
            ),

            posted as (
                select e.ledger_account_id, e.side, e.amount_minor
                from ledger.entries as e
                where e.ledger_transaction_id = v_transaction_id
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

    insert into ledger.accounts (ledger_account_id, merchant_id, code, currency, normal_side, created_at)
    select distinct
        coalesce(l.merchant_id, 'platform') || ':' || l.code || ':' || l.currency as ledger_account_id,
        l.merchant_id,
        l.code,
        l.currency,
        case when l.code in ('card_receivable', 'bank') then 'D' else 'C' end,
        p_posted_at
    from unnest(p_legs) as l
    where l.amount_minor is distinct from 0
    order by ledger_account_id
    on conflict do nothing;

    -- Always in the same order: two postings that share accounts wait for each other, and never for ever.
    perform from ledger.accounts as a
    where a.ledger_account_id in (
        select coalesce(l.merchant_id, 'platform') || ':' || l.code || ':' || l.currency
        from unnest(p_legs) as l
    )
    order by a.ledger_account_id
    for no key update;

    with
    legs as (
        select
            coalesce(l.merchant_id, 'platform') || ':' || l.code || ':' || l.currency as ledger_account_id,
            l.currency,
            l.side,
            l.amount_minor,
            l.n
        from unnest(p_legs) with ordinality as l (merchant_id, code, currency, side, amount_minor, n)
        where l.amount_minor is distinct from 0
    ),

    numbered as (
        select
            legs.*,
            a.entry_count,
            case a.normal_side
                when 'D' then a.debits_posted_minor - a.credits_posted_minor
                else a.credits_posted_minor - a.debits_posted_minor
            end as balance_before,
            case when legs.side = a.normal_side then legs.amount_minor else -legs.amount_minor end as change
        from legs
        inner join ledger.accounts as a on legs.ledger_account_id = a.ledger_account_id
    )

    insert into ledger.entries (
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
        v_transaction_id,
        row_number() over (order by n),
        ledger_account_id,
        currency,
        side,
        amount_minor,
        entry_count + row_number() over (partition by ledger_account_id order by n),
        balance_before + sum(change) over (partition by ledger_account_id order by n),
        p_posted_at
    from numbered;

    update ledger.accounts as a
    set
        debits_posted_minor = a.debits_posted_minor + moved.debits,
        credits_posted_minor = a.credits_posted_minor + moved.credits,
        entry_count = a.entry_count + moved.entries
    from (
        select
            e.ledger_account_id,
            coalesce(sum(e.amount_minor) filter (where e.side = 'D'), 0) as debits,
            coalesce(sum(e.amount_minor) filter (where e.side = 'C'), 0) as credits,
            count(*) as entries
        from ledger.entries as e
        where e.ledger_transaction_id = v_transaction_id
        group by e.ledger_account_id
    ) as moved
    where a.ledger_account_id = moved.ledger_account_id;

    return v_transaction_id;
end
$$;
comment on function ledger.post is
'Posts one transaction: makes missing accounts, locks accounts in order, appends entries with running balances. '
'The same kind and source again returns the posting that exists; with other legs it is refused.';

revoke all on function ledger.post from public;
