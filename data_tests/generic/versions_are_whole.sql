{#-
    Fails on versions of a record (`key`) that are not numbered from 1, end before they begin, overlap with the next one, leave
    a gap before it although no deletion parts them, or are open and not the last.
-#}
{% test versions_are_whole(model, key) %}
    with

    versions as (
        select
            {{ key | join(', ') }},
            version_number,
            valid_from,
            valid_to,
            is_current,
            is_deleted_at_end,
            row_number() over (partition by {{ key | join(', ') }} order by version_number) as place,
            lead(valid_from) over (partition by {{ key | join(', ') }} order by version_number) as next_from
        from {{ model }}
    )

    select * from versions
    where
        version_number <> place
        or valid_to < valid_from
        or is_current <> (valid_to is null)
        or (next_from is not null and is_current)
        or (next_from is null and not is_current and not is_deleted_at_end)
        or next_from < valid_to
        or (next_from > valid_to and not is_deleted_at_end)
{% endtest %}
