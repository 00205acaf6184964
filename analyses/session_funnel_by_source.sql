-- Which sources bring visits that end in a payment, and at which step do the others leave?
-- A step counts when it or a later one was reached; visits without a recorded event reached none. Paid: the payment
-- of the visit was captured.
with

sessions as (
    select * from {{ ref('fct_sessions') }}
),

totals as (
    select
        coalesce(utm_source, 'direct') as utm_source,
        count(*) as session_count,
        {%- for step in funnel_steps() %}
            sum(case when funnel_depth >= {{ loop.index }} then 1 else 0 end) as {{ step }}_count,
        {%- endfor %}
        sum(case when has_paid then 1 else 0 end) as paid_count
    from sessions
    group by coalesce(utm_source, 'direct')
),

final as (
    select
        totals.*,
        {{ basis_points('checkout_started_count', 'session_count') }} as checkout_basis_points,
        {{ basis_points('paid_count', 'session_count') }} as paid_basis_points
    from totals
)

select * from final
order by session_count desc, utm_source asc
