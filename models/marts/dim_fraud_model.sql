with

fraud_decisions as (
    select * from {{ ref('fct_fraud_decisions') }}
),

fraud_scores as (
    select * from {{ ref('fct_fraud_scores') }}
),

uses as (
    select
        fraud_model_key,
        model_version,
        decided_at as used_at
    from fraud_decisions

    union all

    select
        fraud_model_key,
        model_version,
        scored_at as used_at
    from fraud_scores
),

used as (
    select
        fraud_model_key,
        model_version,
        case when model_version is null then 'rules' else 'model' end as kind,
        min(used_at) as first_used_at,
        max(used_at) as last_used_at,
        false as is_unknown
    from uses
    group by fraud_model_key, model_version
),

unknown as (
    select
        {{ unknown_key() }} as fraud_model_key,
        cast(null as text) as model_version,
        'unknown' as kind,
        cast(null as timestamptz) as first_used_at,
        cast(null as timestamptz) as last_used_at,
        true as is_unknown
),

final as (
    select * from used
    union all
    select * from unknown
)

select * from final
