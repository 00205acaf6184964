{%- set after = sequence_built() -%}
{%- set entities = ['charges', 'refunds', 'disputes', 'early_fraud_warnings'] -%}
with

landed as (
    {%- for entity in ([] if var('as_of', none) else entities) %}
        select max(live._source_at) as source_at
        from {{ live_rows(entity, after) }} as live
        union all
    {%- endfor %}
    select {{ as_of() }} as source_at
),

final as (
    select max(source_at) as as_of_at
    from landed
)

select * from final
