"""Whether the guards themselves stand: triggers, constraints, foreign keys, row level security."""

from payments.systems.oltp.invariants.invariant import Invariant

GUARDS_STAND = Invariant(
    "L4 every declared trigger stands enabled on its table and on every partition of it",
    "rules.triggers",
    """
    select format('%I on %s', d.trigger_name, coalesce(r.relid::text, d.table_name))
    from rules.triggers as d
    cross join lateral (
        select to_regclass(d.table_name)
        union
        select t.relid
        from pg_partition_tree(to_regclass(d.table_name)) as t
    ) as r (relid)
    left join pg_trigger as g on r.relid = g.tgrelid and d.trigger_name = g.tgname
    left join pg_proc as f on g.tgfoid = f.oid
    left join pg_namespace as m on f.pronamespace = m.oid
    where
        g.tgenabled is null
        or g.tgenabled not in ('O', 'A')
        or g.tgtype <> d.trigger_type
        or format('%I.%I', m.nspname, f.proname) <> d.function_name
    """,
)

TRIGGERS_ENABLED = Invariant(
    "L4 no trigger is disabled, nor any that enforces a foreign key",
    "(select from pg_trigger as t inner join pg_class as r on t.tgrelid = r.oid "
    "inner join pg_namespace as n on r.relnamespace = n.oid where n.nspname = any({schemas}))",
    """
    select format('%I on %s', t.tgname, t.tgrelid::regclass)
    from pg_trigger as t
    inner join pg_class as r on t.tgrelid = r.oid
    inner join pg_namespace as n on r.relnamespace = n.oid
    where n.nspname = any({schemas}) and t.tgenabled not in ('O', 'A')
    """,
)

CONSTRAINTS_VALIDATED = Invariant(
    "every constraint is validated, and every declared foreign key stands as declared",
    "(select from pg_constraint as c inner join pg_namespace as n on c.connamespace = n.oid "
    "where n.nspname = any({schemas}))",
    """
    select format('%I on %s', c.conname, c.conrelid::regclass)
    from pg_constraint as c
    inner join pg_namespace as n on c.connamespace = n.oid
    where n.nspname = any({schemas}) and not c.convalidated
    union all
    select format('%I on %s is missing', d.constraint_name, d.table_name)
    from rules.foreign_keys as d
    where not exists (
        select from pg_constraint as c
        where c.conname = d.constraint_name
            and c.conrelid = to_regclass(d.table_name)
            and c.contype = 'f'
            and pg_get_constraintdef(c.oid) = d.definition
    )
    """,
)

TENANTS_ARE_APART = Invariant(
    "every table of tenants has row level security with the policy of its merchant",
    "(select from pg_policy as p where p.polname = 'of_merchant')",
    """
    select r.oid::regclass::text
    from pg_class as r
    inner join pg_namespace as n on r.relnamespace = n.oid
    where n.nspname in ('core', 'ledger', 'identity', 'ops')
        and r.relkind in ('r', 'p')
        and not r.relispartition
        and exists (
            select from pg_attribute as a
            where a.attrelid = r.oid and a.attname = 'merchant_id' and not a.attisdropped
        )
        and not (
            r.relrowsecurity
            and exists (select from pg_policy as p where p.polrelid = r.oid and p.polname = 'of_merchant')
        )
    """,
)
