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
