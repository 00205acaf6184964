{#- The steps of a shop's funnel, in order, by the type of event that reaches each. -#}
{% macro funnel_steps() -%}
    {{ return(['page_view', 'product_view', 'add_to_cart', 'checkout_started', 'payment_submitted']) }}
{%- endmacro %}


{#- The share of a part in a whole, numeric(5, 4) rounded half to even; null where the whole is zero. -#}
{% macro share_of(part, whole) -%}
    {%- set ten_thousandths = 'cast(10000 * (' ~ part ~ ') as ' ~ type_wide_integer() ~ ')' -%}
    cast({{ divide_half_even(ten_thousandths, 'nullif(' ~ whole ~ ', 0)') }} * cast(0.0001 as numeric(5, 4)) as numeric(5, 4))
{%- endmacro %}
