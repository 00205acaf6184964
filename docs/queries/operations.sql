-- Operations. Each query names the index that it needs; tests/systems/test_plans.py holds the planner to it.

-- answer-of-a-request: What a request with this idempotency key was told.
-- index: ops.idempotency_keys_pkey
select * from ops.idempotency_keys
where merchant_id = :'merchant_id' and idempotency_key = :'idempotency_key';

-- answers-to-forget: Answers that need not be repeated any more.
-- index: ops.idempotency_keys_old
select
    merchant_id,
    idempotency_key
from ops.idempotency_keys
where created_at < :'until';

-- events-since: The next events for other systems. Lies within one month.
-- index: ops.outbox_in_time
select *
from ops.outbox
where created_at >= :'since' and created_at < :'end_of_month'
order by created_at, event_id
limit 100;

-- history-of-a-row: Who changed a row, when, what and why, newest first.
-- index: ops.audit_log_by_row
select *
from ops.audit_log
where merchant_id = :'merchant_id' and table_name = :'table_name' and row_key = :'row_key'
order by at desc
limit 100;
