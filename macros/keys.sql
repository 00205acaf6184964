{#-
    Surrogate key: the md5 of the natural key's parts, each written as length:text (a missing part as -), so that no two
    different keys write the same text. With only missing parts it is the key of the unknown member.
-#}
{% macro surrogate_key(parts) -%}
    md5(
    {%- for part in parts %}
        coalesce(cast(length(cast({{ part }} as text)) as text) || ':' || cast({{ part }} as text), '-')
        {{- ' ||' if not loop.last }}
    {%- endfor %}
    )
{%- endmacro %}


{#- Key of the member that stands for what is not known. -#}
{% macro unknown_key() -%}
    md5('-')
{%- endmacro %}


{#- Key of a customer of a merchant of the operational store; a visitor who is not known has that of the unknown member. -#}
{% macro customer_key_of(merchant_id, customer_id) -%}
    case
        when {{ customer_id }} is null then {{ unknown_key() }}
        else {{ surrogate_key(["'oltp'", merchant_id, customer_id]) }}
    end
{%- endmacro %}


{#- Key of a payment method of a merchant of the operational store; a payment that names none has that of the unknown member. -#}
{% macro payment_method_key_of(merchant_id, payment_method_id) -%}
    case
        when {{ payment_method_id }} is null then {{ unknown_key() }}
        else {{ surrogate_key(["'oltp'", merchant_id, payment_method_id]) }}
    end
{%- endmacro %}


{#- Key of what decides on frauds: a version of a model, or the rules alone where no model is named. -#}
{% macro fraud_model_key_of(model_version) -%}
    {{ surrogate_key(["'fraud'", model_version]) }}
{%- endmacro %}
