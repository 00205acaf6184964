with

versions as (
    select * from {{ ref('hist_subscriptions') }}
),

-- The first version holds from the creation of the subscription, but nobody may have looked before it was canceled.
-- What the record itself tells of the time before is told here: its trial, and the moment its state began (its end, or
-- its last change). One that expired while it was incomplete never was anything else.
dated as (
    select
        *,
        coalesce(valid_to, {{ as_of() }}) as known_until,
        coalesce(ended_at, updated_at) as state_from,
        version_number = 1 and status not in ('incomplete', 'incomplete_expired', 'trialing') as may_have_tried,
        version_number = 1 and (
            status in ('past_due', 'unpaid', 'paused', 'canceled')
            or (status = 'active' and is_canceling_at_period_end)
        ) as may_have_been_active
    from versions
),

tried as (
    select
        *,
        case
            when may_have_tried and trial_end_at > valid_from and least(trial_end_at, ended_at) <= known_until
                then least(trial_end_at, ended_at)
        end as trial_until
    from dated
),

parted as (
    select
        *,
        case
            when
                may_have_been_active
                and state_from > coalesce(trial_until, valid_from)
                and state_from <= known_until
                then state_from
        end as active_until
    from tried
),

told as (
    select
        *,
        1 as part,
        'trialing' as state,
        false as is_canceling,
        true as is_inferred,
        valid_from as state_valid_from,
        trial_until as state_valid_to
    from parted
    where trial_until is not null

    union all

    select
        *,
        2 as part,
        'active' as state,
        false as is_canceling,
        true as is_inferred,
        coalesce(trial_until, valid_from) as state_valid_from,
        active_until as state_valid_to
    from parted
    where active_until is not null

    union all

    select
        *,
        3 as part,
        status as state,
        is_canceling_at_period_end as is_canceling,
        trial_until is not null or active_until is not null as is_inferred,
        coalesce(active_until, trial_until, valid_from) as state_valid_from,
        valid_to as state_valid_to
    from parted
),

final as (
    select
        merchant_id,
        subscription_id,
        customer_id,
        currency,
        row_number() over (
            partition by merchant_id, subscription_id
            order by version_number, part
        ) as state_number,
        state as status,
        is_canceling,
        is_inferred,
        state_valid_from as valid_from,
        state_valid_to as valid_to,
        _position,
        _batch_id
    from told
)

select * from final
