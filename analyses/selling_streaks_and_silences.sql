-- Which merchants sell every day, and which went silent, for how long?
-- Days (UTC) with at least one captured payment. A silence is the days between two of them: the one since the last
-- sale is not over and is not counted. Of equal streaks the first one is named.
with

payments as (
    select * from {{ ref('fct_payments') }}
    where captured_amount_minor > 0
),

merchants as (
    select * from {{ ref('dim_merchant') }}
),

days as (
    select distinct
        merchant_key,
        paid_on
    from payments
),

neighbours as (
    select
        days.*,
        lag(days.paid_on) over (partition by days.merchant_key order by days.paid_on) as previous_paid_on,
        cast(row_number() over (partition by days.merchant_key order by days.paid_on) as integer) as day_number
    from days
),

-- Days of one streak have the same distance to their number.
streaks as (
    select
        merchant_key,
        min(paid_on) as began_on,
        count(*) as day_count
    from neighbours
    group by merchant_key, paid_on - day_number
),

ranked as (
    select
        streaks.*,
        count(*) over (partition by streaks.merchant_key) as streak_count,
        row_number() over (
            partition by streaks.merchant_key
            order by streaks.day_count desc, streaks.began_on asc
        ) as place
    from streaks
),

silences as (
    select
        merchant_key,
        count(*) as selling_day_count,
        coalesce(max(paid_on - previous_paid_on - 1), 0) as longest_silence_days,
        max(paid_on) as last_sale_on
    from neighbours
    group by merchant_key
),

final as (
    select
        merchants.merchant_id,
        merchants.business_name,
        silences.selling_day_count,
        ranked.streak_count,
        ranked.day_count as longest_streak_days,
        ranked.began_on as longest_streak_from,
        silences.longest_silence_days,
        silences.last_sale_on
    from silences
    inner join ranked
        on
            silences.merchant_key = ranked.merchant_key
            and ranked.place = 1
    inner join merchants
        on silences.merchant_key = merchants.merchant_key
)

select * from final
order by longest_silence_days desc, merchant_id asc
