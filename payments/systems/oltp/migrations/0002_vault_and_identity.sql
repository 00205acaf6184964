-- Key material of persons. A subject is a person; destroying wrapped_key makes every ciphertext of that person unreadable.
create schema vault;

create table vault.subjects (
    subject_id uuid primary key,
    key_id text not null,
    wrapped_key bytea,
    created_at timestamptz not null default now(),
    erased_at timestamptz,
    constraint key_until_erased check ((wrapped_key is null) = (erased_at is not null))
);
comment on table vault.subjects is 'One row a person: the data key, wrapped by the key ring''s key named in key_id, until erasure destroys it.';
