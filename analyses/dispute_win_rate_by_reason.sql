-- Which disputes do merchants win, what is at stake, and how long does it take?
-- The rate is over disputes that are decided; the mean time is of these as well. Inquiries are left out.
with

disputes as (
    select * from {{ ref('fct_disputes') }}
    where not is_inquiry
),

totals as (
    select
        reason,
        count(*) as dispute_count,
        sum(case when is_open then 1 else 0 end) as open_count,
        sum(case when status = 'won' then 1 else 0 end) as won_count,
        sum(case when status = 'lost' then 1 else 0 end) as lost_count,
        coalesce(sum(case when is_open then reporting_amount_minor else 0 end), 0) as open_usd_minor,
        coalesce(sum(case when status = 'won' then reporting_amount_minor else 0 end), 0) as won_usd_minor,
        coalesce(sum(case when status = 'lost' then reporting_amount_minor else 0 end), 0) as lost_usd_minor,
        count(days_to_close) as closed_count,
        sum(days_to_close) as days_to_close
    from disputes
    group by reason
),

final as (
    select
        reason,
        dispute_count,
        open_count,
        won_count,
        lost_count,
        {{ basis_points('won_count', '(won_count + lost_count)') }} as win_rate_basis_points,
        open_usd_minor,
        won_usd_minor,
        lost_usd_minor,
        {{ divide_half_even('10 * days_to_close', 'nullif(closed_count, 0)') }} as mean_tenths_of_days_to_close
    from totals
)

select * from final
order by lost_usd_minor desc, reason asc
