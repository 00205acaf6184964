-- Reference data. The rows are the dbt seeds (seeds/*.csv), loaded after the migrations, so that each list has one home.
create schema core;

create table core.currencies (
    currency char(3) primary key check (currency = upper(currency)),
    currency_name text not null,
    exponent smallint not null check (exponent between 0 and 4)
);
comment on table core.currencies is 'ISO 4217 currencies; exponent is the number of decimals of the minor unit (JPY 0, USD 2, KWD 3).';

create table core.countries (
    country char(2) primary key check (country = upper(country)),
    country_name text not null,
    region text not null,
    currency char(3) not null references core.currencies
);
comment on table core.countries is 'ISO 3166-1 countries with the currency in use there.';

create table core.merchant_categories (
    mcc char(4) primary key check (mcc ~ '^[0-9]{4}$'),
    category_name text not null
);
comment on table core.merchant_categories is 'ISO 18245 merchant category codes.';
