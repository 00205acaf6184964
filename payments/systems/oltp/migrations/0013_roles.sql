-- Who may do what. Roles are groups without login: a deployment grants them to the logins of its services and people.
--   payments_app          acts for one merchant at a time (set app.merchant_id): sees and keeps its rows, moves money by api.call
--   payments_replication  reads what other systems receive
--   payments_analyst      reads business data of all merchants, pseudonymous
--   payments_auditor      reads the ledger, the audit trail and business data
--   payments_operator     runs maintenance, proposes and decides adjustments
do $$
declare
    v_role text;
begin
    foreach v_role in array array[
        'payments_app', 'payments_replication', 'payments_analyst', 'payments_auditor', 'payments_operator'
    ]
    loop
        -- Roles belong to the server, not to the database: another one there may have made them.
        if not exists (select from pg_roles as r where r.rolname = v_role) then
            execute format('create role %I nologin', v_role);
        end if;
    end loop;
end
$$;

-- Nobody gets in by being somebody: no connection, no temporary objects, and no function, of today or of a later migration.
do $$
begin
    execute format('revoke all on database %I from public', current_database());
    execute format(
        'grant connect on database %I to '
        'payments_app, payments_replication, payments_analyst, payments_auditor, payments_operator',
        current_database()
    );
end
$$;
alter default privileges revoke execute on routines from public;
revoke all on schema public from public;
revoke all on all functions in schema core, ledger, ops, rules, api from public;
revoke all on all procedures in schema core, ledger, ops, rules, api from public;

grant usage on schema core, ledger to
payments_app, payments_replication, payments_analyst, payments_auditor, payments_operator;
grant usage on schema ops to payments_app, payments_replication, payments_auditor, payments_operator;
grant usage on schema api, identity, vault to payments_app;

-- Tenant tables: every row belongs to a merchant, and is seen only by who acts for it or for the platform.
do $$
declare
    v_table record;
begin
    for v_table in
        select
            c.oid::regclass as relation,
            n.nspname as schema_name,
            c.relname as table_name
        from pg_class as c
        inner join pg_namespace as n on c.relnamespace = n.oid
        where n.nspname in ('core', 'ledger', 'identity', 'ops')
            and c.relkind in ('r', 'p')
            and not c.relispartition
            and exists (
                select from pg_attribute as a
                where a.attrelid = c.oid and a.attname = 'merchant_id' and not a.attisdropped
            )
        order by c.oid
    loop
        execute format('alter table %s enable row level security', v_table.relation);
        execute format(
            'create policy of_merchant on %s to payments_app '
            'using (merchant_id = ops.current_merchant()) with check (merchant_id = ops.current_merchant())',
            v_table.relation
        );
        if v_table.schema_name in ('core', 'ledger') then
            execute format(
                'create policy of_platform on %s for select '
                'to payments_replication, payments_analyst, payments_auditor, payments_operator using (true)',
                v_table.relation
            );
            execute format(
                'grant select on %s to '
                'payments_app, payments_replication, payments_analyst, payments_auditor, payments_operator',
                v_table.relation
            );
        end if;
    end loop;
end
$$;

-- The application keeps what moves no money by itself; the rest it changes through api.call only.
grant insert, update on
core.customers, core.payment_methods, core.setup_intents, core.products, core.prices, core.coupons,
core.checkout_sessions, core.reviews
to payments_app;
grant insert on core.early_fraud_warnings to payments_app;
grant select, insert on identity.customers to payments_app;
grant select, insert on vault.subjects to payments_app;
-- A person belongs to no merchant, but its key is read only by a merchant that it is a customer of.
alter table vault.subjects enable row level security;
create policy of_merchant on vault.subjects for select to payments_app
using (exists (select from identity.customers as c where c.subject_id = subjects.subject_id));
create policy of_newcomer on vault.subjects for insert to payments_app with check (wrapped_key is not null);
grant select on ops.outbox to payments_app;
grant execute on function api.call, ops.current_merchant, core.new_id, core.id_moment to payments_app;

grant select on
core.currencies, core.countries, core.merchant_categories
to payments_app, payments_replication, payments_analyst, payments_auditor, payments_operator;
grant select on ledger.account_codes, ledger.closed_periods
to payments_replication, payments_analyst, payments_auditor, payments_operator;
grant select on ledger.general_ledger to payments_app, payments_auditor, payments_operator;

create policy of_platform on ops.outbox for select to payments_replication, payments_operator using (true);
create policy of_platform on ops.audit_log for select to payments_auditor, payments_operator using (true);
create policy of_platform on ops.idempotency_keys for select to payments_operator using (true);
grant select on ops.outbox to payments_replication, payments_operator;
grant select on ops.audit_log to payments_auditor, payments_operator;
grant select on ops.idempotency_keys, ops.monthly_tables to payments_operator;

grant select on ledger.seals to payments_replication, payments_auditor, payments_operator;
grant execute on function ledger.broken_seals, ledger.content_of, ledger.seal_hash to payments_auditor, payments_operator;
grant execute on function ledger.trial_balance to payments_analyst, payments_auditor, payments_operator;
grant execute on function ledger.account_id to payments_analyst, payments_auditor, payments_operator;

grant execute on function
ledger.seal, ops.ensure_months, ops.stray_rows, ops.stray_months, ops.forget_idempotency_keys, core.expire_authorizations,
core.settle_due, core.settle_day, core.create_payout, core.advance_payout, core.close_refund, core.open_dispute,
core.advance_dispute, core.close_dispute, core.bill_subscription, core.end_invoice, core.reverse_topup,
core.propose_adjustment, core.decide_adjustment
to payments_operator;
grant execute on procedure ledger.close_period to payments_operator;
