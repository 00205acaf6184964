-- What every change leaves behind, in its own transaction: an event for other systems, a trace for auditors, and the answer
-- that a repeated request gets.
create schema ops;

create table ops.monthly_tables (
    table_name text primary key,
    time_column text not null
);
comment on table ops.monthly_tables is 'The tables that are partitioned by month.';
insert into ops.monthly_tables (table_name, time_column) values
('ledger.entries', 'posted_at'),
('ops.outbox', 'created_at'),
('ops.audit_log', 'at');

create table ops.idempotency_keys (
    merchant_id text not null references core.merchants,
    idempotency_key text not null check (length(idempotency_key) between 1 and 255),
    operation text not null,
    request_hash bytea not null,
    response jsonb not null,
    created_at timestamptz not null default now(),
    primary key (merchant_id, idempotency_key)
) partition by hash (merchant_id);
call core.partition_by_merchant('ops.idempotency_keys');
comment on table ops.idempotency_keys is 'One row an answered request; the same key with the same parameters gets the same answer for 24 hours.';
create index idempotency_keys_old on ops.idempotency_keys (created_at);

create table ops.outbox (
    merchant_id text not null,
    event_id text not null check (event_id ~ '^evt_[A-Za-z0-9]+$'),
    event_type text not null,
    object_id text not null,
    object_version bigint not null,
    payload jsonb not null,
    created_at timestamptz not null default now(),
    primary key (merchant_id, event_id, created_at)
) partition by range (created_at);
create table ops.outbox_default partition of ops.outbox default;
comment on table ops.outbox is 'One row an event for other systems, written in the transaction that it tells of. Partitioned by month.';
create index outbox_in_time on ops.outbox (created_at, event_id);
call ledger.protect('ops.outbox', 'update or delete');

create table ops.audit_log (
    audit_id bigint generated always as identity,
    at timestamptz not null default clock_timestamp(),
    actor text not null,
    login text not null default session_user,
    reason text,
    request_id text,
    merchant_id text,
    table_name text not null,
    operation text not null check (operation in ('insert', 'update', 'bulk load', 'seal', 'close period', 'retire')),
    row_key text not null,
    changes jsonb not null,
    recorded_xid xid8 not null default pg_current_xact_id(),
    primary key (audit_id, at)
) partition by range (at);
create table ops.audit_log_default partition of ops.audit_log default;
comment on table ops.audit_log is 'One row a change: who, when, what (each changed column with its old and new value), why. Partitioned by month.';
comment on column ops.audit_log.login is 'The role that logged in; actor is whom the setting app.actor named, else the same.';
create index audit_log_by_row on ops.audit_log (merchant_id, table_name, row_key, at desc);
call ledger.protect('ops.audit_log', 'update or delete');

create function ops.current_merchant() returns text
language sql
stable
parallel safe
return nullif(current_setting('app.merchant_id', true), '');
comment on function ops.current_merchant is 'The merchant that the session acts for (set app.merchant_id), or null.';

create function ops.current_actor() returns text
language sql
stable
parallel safe
return coalesce(nullif(current_setting('app.actor', true), ''), session_user::text);
comment on function ops.current_actor is 'Who acts: the setting app.actor, or the role that logged in.';

create procedure ops.record(
    p_merchant_id text, p_table_name text, p_operation text, p_row_key text, p_changes jsonb
)
language sql
set search_path = pg_catalog, pg_temp
as $$
    insert into ops.audit_log (actor, reason, request_id, merchant_id, table_name, operation, row_key, changes)
    values (
        ops.current_actor(),
        nullif(current_setting('app.reason', true), ''),
        nullif(current_setting('app.request_id', true), ''),
        p_merchant_id,
        p_table_name,
        p_operation,
        p_row_key,
        p_changes
    )
$$;
comment on procedure ops.record is 'Writes one line of the audit trail.';

create function ops.audit() returns trigger
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_new jsonb := to_jsonb(new);
    v_changes jsonb := '{}';
begin
    if tg_op = 'UPDATE' then
        select coalesce(jsonb_object_agg(n.key, jsonb_build_array(o.value, n.value)), '{}') into v_changes
        from jsonb_each(v_new) as n
        inner join jsonb_each(to_jsonb(old)) as o on n.key = o.key and n.value <> o.value
        where n.key not in ('version', 'updated_at');
    end if;
    -- Of a new row the key is enough: what it was is what the row is, less the changes recorded since.
    insert into ops.audit_log (actor, reason, request_id, merchant_id, table_name, operation, row_key, changes)
    values (
        ops.current_actor(),
        nullif(current_setting('app.reason', true), ''),
        nullif(current_setting('app.request_id', true), ''),
        new.merchant_id,
        tg_argv[0],
        lower(tg_op),
        v_new ->> tg_argv[1],
        v_changes
    );
    return null;
end
$$;
comment on function ops.audit is 'Records an insert or update in the audit trail, within its transaction.';

do $$
declare
    v_table record;
begin
    for v_table in
        select
            c.oid::regclass as relation,
            n.nspname || '.' || c.relname as name,
            (
                select a.attname
                from pg_index as i
                inner join pg_attribute as a on i.indrelid = a.attrelid and a.attnum = i.indkey[i.indnkeyatts - 1]
                where i.indrelid = c.oid and i.indisprimary
            ) as key
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname in ('core', 'identity')
            and c.relkind in ('r', 'p')
            and not c.relispartition
            and exists (select from pg_attribute as m where m.attrelid = c.oid and m.attname = 'merchant_id')
            -- These tell of themselves: they are append-only and follow from a row that is audited.
            and c.relname not in (
                'balance_transactions', 'balance_transaction_fees', 'payout_balance_transactions', 'settlements'
            )
        order by c.oid
    loop
        execute format(
            'create trigger audited after insert or update on %s for each row execute function ops.audit(%L, %L)',
            v_table.relation,
            v_table.name,
            v_table.key
        );
    end loop;
end
$$;

create function ops.emit(
    p_merchant_id text, p_event_type text, p_object_id text, p_object_version bigint, p_payload jsonb
) returns text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_event_id text := core.new_id('evt');
begin
    insert into ops.outbox (merchant_id, event_id, event_type, object_id, object_version, payload)
    values (p_merchant_id, v_event_id, p_event_type, p_object_id, p_object_version, p_payload);
    return v_event_id;
end
$$;
comment on function ops.emit is 'Writes one event into the outbox.';

create function ops.name_of_month(p_table text, p_month date) returns text
language sql
immutable
return p_table || '_' || to_char(p_month, 'YYYY_MM');
comment on function ops.name_of_month is 'The partition of a table for a month.';

create function ops.ensure_months(p_first date, p_last date) returns setof text
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table record;
    v_month date;
    v_name text;
    v_is_astray boolean;
begin
    perform pg_advisory_xact_lock(5432003);
    for v_table in
        select m.table_name, m.time_column
        from ops.monthly_tables as m
        order by m.table_name
    loop
        for v_month in
            select g::date
            from generate_series(date_trunc('month', p_first::timestamp), p_last::timestamp, interval '1 month') as g
        loop
            v_name := ops.name_of_month(v_table.table_name, v_month);
            continue when to_regclass(v_name) is not null;
            execute format(
                'select exists (select from %1$s_default where %2$I >= %3$L and %2$I < %4$L)',
                v_table.table_name,
                v_table.time_column,
                v_month::text || ' 00:00+00',
                (v_month + interval '1 month')::date::text || ' 00:00+00'
            ) into v_is_astray;
            -- Rows that came before their partition stand in the default one; they move.
            if v_is_astray then
                execute format('alter table %1$s detach partition %1$s_default', v_table.table_name);
            end if;
            execute format(
                'create table %s partition of %s for values from (%L) to (%L)',
                v_name,
                v_table.table_name,
                v_month::text || ' 00:00+00',
                (v_month + interval '1 month')::date::text || ' 00:00+00'
            );
            call ledger.refuse_truncate(v_name::regclass);
            if v_table.table_name = 'ledger.entries' then
                call ledger.guard_entries(v_name::regclass);
            end if;
            if v_is_astray then
                execute format(
                    'with moved as (delete from %2$s_default where %3$I >= %4$L and %3$I < %5$L returning *) '
                    'insert into %1$s overriding system value select * from moved',
                    v_name,
                    v_table.table_name,
                    v_table.time_column,
                    v_month::text || ' 00:00+00',
                    (v_month + interval '1 month')::date::text || ' 00:00+00'
                );
                execute format('alter table %1$s attach partition %1$s_default default', v_table.table_name);
            end if;
            return next v_name;
        end loop;
    end loop;
end
$$;
comment on function ops.ensure_months is 'Makes the missing monthly partitions between two days, moves what strayed into the default ones, and returns what it made.';

create function ops.stray_rows() returns table (table_name text, row_count bigint)
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    for table_name in
        select m.table_name from ops.monthly_tables as m order by m.table_name
    loop
        execute format('select count(*) from %s_default', table_name) into row_count;
        return next;
    end loop;
end
$$;
comment on function ops.stray_rows is 'How many rows stand in the default partitions, where none should be.';

create function ops.stray_months() returns setof date
language plpgsql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_table record;
begin
    for v_table in
        select m.table_name, m.time_column from ops.monthly_tables as m order by m.table_name
    loop
        return query execute format(
            'select distinct ledger.period_of(%I) from %s_default', v_table.time_column, v_table.table_name
        );
    end loop;
end
$$;
comment on function ops.stray_months is 'The months of the rows that stand in the default partitions.';

create function ops.forget_idempotency_keys(p_before timestamptz default now() - interval '24 hours') returns bigint
language sql
security definer
set search_path = pg_catalog, pg_temp
as $$
    with forgotten as (delete from ops.idempotency_keys where created_at < p_before returning 1)

    select count(*) from forgotten
$$;
comment on function ops.forget_idempotency_keys is 'Removes answers that need not be repeated any more.';

create function ledger.seal() returns bigint
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
    v_last ledger.seals;
    v_from xid8;
    v_to xid8 := pg_snapshot_xmin(pg_current_snapshot());
    v_content record;
    v_seal ledger.seals;
begin
    perform pg_advisory_xact_lock(5432004);
    select * into v_last from ledger.seals as s order by s.seal_no desc limit 1;
    v_from := coalesce(v_last.to_xid, '0'::xid8);
    if v_to <= v_from then
        return 0;
    end if;
    select * into v_content from ledger.content_of(v_from, v_to);
    if v_content.transaction_count = 0 then
        return 0;
    end if;
    v_seal.seal_no := coalesce(v_last.seal_no, 0) + 1;
    v_seal.previous_hash := coalesce(
        v_last.seal_hash, '\x0000000000000000000000000000000000000000000000000000000000000000'::bytea
    );
    v_seal.seal_hash := ledger.seal_hash(
        v_seal.seal_no, v_from, v_to, v_content.transaction_count, v_content.content_hash, v_seal.previous_hash
    );
    insert into ledger.seals (
        seal_no, from_xid, to_xid, transaction_count, content_hash, previous_hash, seal_hash
    )
    values (
        v_seal.seal_no,
        v_from,
        v_to,
        v_content.transaction_count,
        v_content.content_hash,
        v_seal.previous_hash,
        v_seal.seal_hash
    );
    -- The head is recorded a second time, in another table: a chain cut at its end is noticed.
    call ops.record(
        null, 'ledger.seals', 'seal', v_seal.seal_no::text, jsonb_build_object('hash', encode(v_seal.seal_hash, 'hex'))
    );
    return v_content.transaction_count;
end
$$;
comment on function ledger.seal is
'Seals what was recorded since the last seal by transactions that have ended; returns how many postings it sealed.';

revoke all on all functions in schema ops from public;
revoke all on all procedures in schema ops from public;
revoke all on function ledger.seal from public;
