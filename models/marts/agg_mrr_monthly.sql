with

months_of_customers as (
    select * from {{ ref('int_mrr_customers') }}
),

final as (
    select
        {{ surrogate_key(['month_start_on', 'merchant_id', 'currency']) }} as mrr_monthly_key,
        month_start_on,
        measured_on,
        {{ surrogate_key(['merchant_id']) }} as merchant_key,
        merchant_id,
        currency,
        cast(sum(mrr_before_minor) as bigint) as opening_mrr_minor,
        cast(sum(case when movement = 'new' then change_minor else 0 end) as bigint) as new_mrr_minor,
        cast(sum(case when movement = 'reactivation' then change_minor else 0 end) as bigint) as reactivation_mrr_minor,
        cast(sum(case when movement = 'expansion' then change_minor else 0 end) as bigint) as expansion_mrr_minor,
        cast(sum(case when movement = 'contraction' then change_minor else 0 end) as bigint) as contraction_mrr_minor,
        cast(sum(case when movement = 'churn' then change_minor else 0 end) as bigint) as churn_mrr_minor,
        cast(sum(mrr_after_minor) as bigint) as closing_mrr_minor,
        cast(sum(case when mrr_before_minor > 0 then 1 else 0 end) as bigint) as opening_customer_count,
        cast(sum(case when movement = 'new' then 1 else 0 end) as bigint) as new_customer_count,
        cast(sum(case when movement = 'reactivation' then 1 else 0 end) as bigint) as reactivation_customer_count,
        cast(sum(case when movement = 'churn' then 1 else 0 end) as bigint) as churn_customer_count,
        cast(sum(case when mrr_after_minor > 0 then 1 else 0 end) as bigint) as closing_customer_count,
        rate_to_reporting,
        cast(sum(reporting_mrr_before_minor) as bigint) as reporting_opening_mrr_minor,
        case
            when rate_to_reporting is not null
                then cast(sum(case when movement = 'new' then reporting_change_minor else 0 end) as bigint)
        end as reporting_new_mrr_minor,
        case
            when rate_to_reporting is not null
                then cast(sum(case when movement = 'reactivation' then reporting_change_minor else 0 end) as bigint)
        end as reporting_reactivation_mrr_minor,
        case
            when rate_to_reporting is not null
                then cast(sum(case when movement = 'expansion' then reporting_change_minor else 0 end) as bigint)
        end as reporting_expansion_mrr_minor,
        case
            when rate_to_reporting is not null
                then cast(sum(case when movement = 'contraction' then reporting_change_minor else 0 end) as bigint)
        end as reporting_contraction_mrr_minor,
        case
            when rate_to_reporting is not null
                then cast(sum(case when movement = 'churn' then reporting_change_minor else 0 end) as bigint)
        end as reporting_churn_mrr_minor,
        cast(sum(reporting_mrr_after_minor) as bigint) as reporting_closing_mrr_minor
    from months_of_customers
    group by month_start_on, measured_on, merchant_id, currency, rate_to_reporting
)

select * from final
