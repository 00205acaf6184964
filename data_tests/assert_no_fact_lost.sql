-- Every record of staging is a row of its fact, and no fact has a row of its own making.
-- Returns the facts whose number of rows differs from staging.
{%- set facts = [
    ['fct_payments', ['stg_oltp__charges', 'stg_files__transactions']],
    ['fct_refunds', ['stg_oltp__refunds']],
    ['fct_disputes', ['stg_oltp__disputes']],
    ['fct_ledger_entries', ['stg_oltp__ledger_entries']],
    ['fct_balance_transactions', ['stg_oltp__balance_transactions']],
    ['fct_payouts', ['stg_oltp__payouts']],
    ['fct_invoices', ['stg_oltp__invoices']],
    ['fct_invoice_lines', ['stg_oltp__invoice_lines']],
    ['fct_access_audit', ['stg_documents__audit_events']],
    ['fct_fraud_scores', ['stg_documents__fraud_scores']],
    ['fct_fraud_decisions', ['stg_documents__fraud_decisions']],
    ['fct_sessions', ['stg_documents__sessions']],
    ['fct_page_events', ['stg_documents__click_events']],
    ['fct_feedback', ['stg_documents__feedback']],
    ['fct_api_requests', ['stg_documents__api_logs']],
    ['fct_webhook_deliveries', ['stg_documents__webhook_deliveries']],
] %}
with

staged as (
    {%- for fact, sources in facts %}
        {%- set is_last = loop.last %}
        {%- for source in sources %}
            select
                '{{ fact }}' as fact,
                count(*) as row_count
            from {{ ref(source) }}
            where not is_deleted
            {%- if not (is_last and loop.last) %}

                union all
            {% endif %}
        {%- endfor %}
    {%- endfor %}
),

built as (
    {%- for fact, _ in facts %}
        select
            '{{ fact }}' as fact,
            count(*) as row_count
        from {{ ref(fact) }}
        {%- if not loop.last %}

            union all
        {% endif %}
    {%- endfor %}
),

staged_by_fact as (
    select
        fact,
        sum(row_count) as staged_count
    from staged
    group by fact
),

final as (
    select
        built.fact,
        staged_by_fact.staged_count,
        built.row_count as fact_count
    from built
    inner join staged_by_fact
        on built.fact = staged_by_fact.fact
    where staged_by_fact.staged_count <> built.row_count
)

select * from final
