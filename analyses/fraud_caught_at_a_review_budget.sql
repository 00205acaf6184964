-- How much fraud did our decisions stop, and how much would reviewing the riskiest few percent have stopped?
-- Only decisions whose outcome is known: what was blocked has none. A budget of p percent reviews the p percent of
-- these with the highest scores, and at least one.
with

decisions as (
    select * from {{ ref('fct_fraud_decisions') }}
    where outcome is not null
),

ranked as (
    select
        decisions.*,
        row_number() over (order by decisions.score desc, decisions.payment_id asc) as place,
        count(*) over () as decision_count
    from decisions
),

policies as (
    select 0 as budget_percent
    union all
    select 1 as budget_percent
    union all
    select 5 as budget_percent
    union all
    select 10 as budget_percent
    union all
    select 20 as budget_percent
),

-- A budget of 0 stands for what was really decided.
judged as (
    select
        policies.budget_percent,
        ranked.outcome,
        coalesce(ranked.reporting_amount_minor, 0) as reporting_amount_minor,
        case
            when policies.budget_percent = 0 then ranked.decision <> 'allow'
            else 100 * (ranked.place - 1) < policies.budget_percent * ranked.decision_count
        end as is_reviewed
    from ranked
    cross join policies
),

totals as (
    select
        budget_percent,
        sum(case when is_reviewed then 1 else 0 end) as reviewed_count,
        sum(case when is_reviewed and outcome = 'fraud' then 1 else 0 end) as caught_count,
        sum(case when outcome = 'fraud' then 1 else 0 end) as fraud_count,
        sum(
            case when is_reviewed and outcome = 'fraud' then reporting_amount_minor else 0 end
        ) as reporting_caught_minor,
        sum(
            case when not is_reviewed and outcome = 'fraud' then reporting_amount_minor else 0 end
        ) as reporting_missed_minor
    from judged
    group by budget_percent
),

final as (
    select
        case when budget_percent = 0 then 'as decided' else 'by score' end as decided_by,
        nullif(budget_percent, 0) as budget_percent,
        reviewed_count,
        caught_count,
        fraud_count - caught_count as missed_count,
        reporting_caught_minor as caught_usd_minor,
        reporting_missed_minor as missed_usd_minor,
        {{ basis_points('reporting_caught_minor', '(reporting_caught_minor + reporting_missed_minor)') }}
            as caught_value_basis_points,
        {{ basis_points('caught_count', 'reviewed_count') }} as precision_basis_points
    from totals
)

select * from final
order by decided_by, budget_percent
