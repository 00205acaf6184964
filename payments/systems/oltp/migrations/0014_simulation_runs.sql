-- What the simulation wrote, so that the same command again finds its own history and completes it.
create schema simulation;

create table simulation.runs (
    seed bigint not null check (seed >= 0),
    transactions integer not null check (transactions > 0),
    days integer not null check (days > 0),
    end_on date not null,
    content_digest text not null,
    row_counts json not null,
    document_counts json not null,
    completed_at timestamptz not null default now(),
    documents_completed_at timestamptz,
    primary key (seed, transactions, days, end_on)
);
comment on table simulation.runs is 'One row a simulated history, written in the transaction that writes its rows.';
comment on column simulation.runs.content_digest is 'Digest of the generated rows: a rerun by another version of the generator is refused.';
comment on column simulation.runs.documents_completed_at is 'When the last document of the history was written; null until then.';
