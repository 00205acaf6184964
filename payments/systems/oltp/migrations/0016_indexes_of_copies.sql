-- What the copies in the document store ask for: the payments of a person or card at all merchants, and what happened
-- at a merchant in the last days.
create index customers_by_network_token on core.customers (network_token);
create index payment_methods_by_fingerprint on core.payment_methods (fingerprint);
create index refunds_recent on core.refunds (merchant_id, created_at desc);
create index disputes_recent on core.disputes (merchant_id, created_at desc);
create index early_fraud_warnings_recent on core.early_fraud_warnings (merchant_id, created_at desc);
