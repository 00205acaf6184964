-- The foreign keys that the schema declares, so that one that went missing is noticed. A migration that adds or drops a
-- foreign key keeps this table in line.
create table rules.foreign_keys (
    table_name text not null,
    constraint_name text not null,
    definition text not null,
    primary key (table_name, constraint_name)
);
comment on table rules.foreign_keys is 'The foreign keys that must stand, as the catalogue writes them.';

insert into rules.foreign_keys (table_name, constraint_name, definition)
select
    format('%I.%I', n.nspname, r.relname),
    c.conname,
    pg_get_constraintdef(c.oid)
from pg_constraint as c
inner join pg_class as r on c.conrelid = r.oid
inner join pg_namespace as n on r.relnamespace = n.oid
where c.contype = 'f' and c.conparentid = 0 and n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops');

-- The triggers that guard the rows, likewise: each must stand, enabled, on its table and on every partition of it.
create table rules.triggers (
    table_name text not null,
    trigger_name text not null,
    function_name text not null,
    trigger_type smallint not null,
    primary key (table_name, trigger_name)
);
comment on table rules.triggers is 'The triggers that must stand on a table and each of its partitions; type as the catalogue writes it.';

insert into rules.triggers (table_name, trigger_name, function_name, trigger_type)
select
    format('%I.%I', n.nspname, r.relname),
    t.tgname,
    format('%I.%I', m.nspname, f.proname),
    t.tgtype
from pg_trigger as t
inner join pg_class as r on t.tgrelid = r.oid
inner join pg_namespace as n on r.relnamespace = n.oid
inner join pg_proc as f on t.tgfoid = f.oid
inner join pg_namespace as m on f.pronamespace = m.oid
where not t.tgisinternal and not r.relispartition and n.nspname in ('core', 'ledger', 'identity', 'vault', 'ops');
