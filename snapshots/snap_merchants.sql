{% snapshot snap_merchants %}
    {{
        config(
            unique_key='merchant_id',
            strategy='timestamp',
            updated_at='updated_at',
            hard_deletes='new_record',
        )
    }}

    select
        merchant_id,
        business_name,
        mcc,
        country,
        default_currency,
        status,
        fee_basis_points,
        fee_fixed_minor,
        created_at,
        updated_at
    from {{ ref('stg_oltp__merchants') }}
    where not is_deleted
{% endsnapshot %}
