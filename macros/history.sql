{#-
    The versions of each record of a landed relation (a CTE or relation with the envelope and the column created_at), from all
    its landed rows: the columns of the relation, then version_number, valid_from, valid_to, is_current, is_deleted_at_end.

    - A version is what one transaction left of a record; what came and went within the transaction is none. Equal content one
      after the other, as a later snapshot repeats it, is one version.
    - It holds from valid_from until before valid_to, which is null for the current one. valid_from is the commit time of its
      transaction. The first version holds from created_at: nobody saw the record before.
    - A deletion ends the last version (is_deleted_at_end). A record that is made again begins its next version then: the time
      between is a gap.
    - The positions order the versions, never the times. No version begins before one that came earlier: where the clock of the
      source went back, or two transactions committed in the same microsecond, a version may hold for no time.
-#}
{% macro versions_from_log(relation) -%}
    with

    -- A position begins with the epoch and the place of the commit, 25 characters: the same for all of a transaction. A
    -- snapshot is a moment of its own, also at the place of a commit.
    states as (
        select
            landed.*,
            case when landed._op in ('d', 'x') then 'gone' else coalesce(landed._content_hash, '') end as _state,
            row_number() over (
                partition by landed._key, left(landed._position, 25), landed._transaction_id
                order by landed._position desc, landed._sequence desc
            ) as _recency
        from {{ relation }} as landed
    ),

    -- The place of a snapshot in the log is taken before it looks. What it saw of transactions behind that place is told again
    -- by the log of the same epoch, and there at its time.
    told as (
        select
            states.*,
            min(case when states._transaction_id is not null then states._source_at end) over (
                partition by states._key, states._state, left(states._position, 8)
                order by states._position
                rows between 1 following and unbounded following
            ) as _told_at
        from states
        where states._recency = 1
    ),

    compared as (
        select
            told.*,
            coalesce(lag(told._state) over (partition by told._key order by told._position), 'gone') as _former_state
        from told
        where told._transaction_id is not null or told._told_at is null or told._told_at > told._source_at
    ),

    changes as (
        select
            compared.*,
            max(compared._source_at) over (
                partition by compared._key
                order by compared._position
                rows between unbounded preceding and current row
            ) as _since
        from compared
        where compared._state <> compared._former_state
    ),

    bounded as (
        select
            changes.*,
            lead(changes._since) over (partition by changes._key order by changes._position) as _until,
            lead(changes._state) over (partition by changes._key order by changes._position) as _next_state
        from changes
    ),

    numbered as (
        select
            bounded.*,
            row_number() over (partition by bounded._key order by bounded._position) as version_number
        from bounded
        where bounded._state <> 'gone'
    )

    select
        numbered.*,
        case
            when numbered.version_number = 1 then least(numbered._since, numbered.created_at) else numbered._since
        end as valid_from,
        numbered._until as valid_to,
        numbered._next_state is null as is_current,
        coalesce(numbered._next_state = 'gone', false) as is_deleted_at_end
    from numbered
{%- endmacro %}


{#- What every history ends with, in the select of its columns: which version the row is, and what told it. -#}
{% macro version_columns() -%}
        -- version
        version_number,
        valid_from,
        valid_to,
        is_current,
        is_deleted_at_end,

        -- lineage
        _position,
        _transaction_id,
        _batch_id,
        _sequence
{%- endmacro %}
