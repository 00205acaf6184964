-- What did customers who moved to another country pay before and after?
-- Each payment counts in the country that the customer had when it was made (the version of the customer that held
-- then), not in the one of today. One row a move; before and after reach to the moves around it.
with

versions as (
    select * from {{ ref('dim_customer_version') }}
),

payments as (
    select * from {{ ref('fct_payments') }}
    where captured_amount_minor > 0
),

compared as (
    select
        versions.*,
        lag(versions.country) over (
            partition by versions.customer_key
            order by versions.version_number
        ) as country_before
    from versions
),

judged as (
    select
        compared.*,
        case
            when compared.country <> compared.country_before then 1
            else 0
        end as is_move
    from compared
),

-- Versions between two moves are one stay.
numbered as (
    select
        judged.*,
        sum(judged.is_move) over (
            partition by judged.customer_key
            order by judged.version_number
            rows between unbounded preceding and current row
        ) as stay_number
    from judged
),

stays as (
    select
        numbered.customer_key,
        numbered.merchant_id,
        numbered.customer_id,
        numbered.stay_number,
        numbered.country,
        min(numbered.valid_from) as stayed_from,
        count(payments.payment_key) as payment_count,
        coalesce(sum(payments.reporting_captured_amount_minor), 0) as captured_usd_minor
    from numbered
    left join payments
        on numbered.customer_version_key = payments.customer_version_key
    group by
        numbered.customer_key,
        numbered.merchant_id,
        numbered.customer_id,
        numbered.stay_number,
        numbered.country
),

moves as (
    select
        later.merchant_id,
        later.customer_id,
        later.stayed_from as moved_at,
        earlier.country as country_before,
        later.country as country_after,
        earlier.payment_count as payment_count_before,
        later.payment_count as payment_count_after,
        earlier.captured_usd_minor as captured_before_usd_minor,
        later.captured_usd_minor as captured_after_usd_minor
    from stays as later
    inner join stays as earlier
        on
            later.customer_key = earlier.customer_key
            and later.stay_number = earlier.stay_number + 1
),

final as (
    select * from moves
)

select * from final
order by moved_at, merchant_id, customer_id
