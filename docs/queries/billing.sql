-- Billing. Each query names the index that it needs; tests/systems/test_plans.py holds the planner to it.

-- prices-of-a-product: The prices of a product.
-- index: core.prices_by_product
select * from core.prices
where merchant_id = :'merchant_id' and product_id = :'product_id';

-- subscriptions-of-a-customer: The subscriptions of a customer.
-- index: core.subscriptions_by_customer
select * from core.subscriptions
where merchant_id = :'merchant_id' and customer_id = :'customer_id';

-- items-of-a-subscription: What a subscription bills.
-- index: core.subscription_items_by_subscription
select * from core.subscription_items
where merchant_id = :'merchant_id' and subscription_id = :'subscription_id';

-- items-due: Subscriptions whose period is over, to be billed.
-- index: core.subscription_items_due
select distinct
    merchant_id,
    subscription_id
from core.subscription_items
where current_period_end_at < :'until';

-- discounts-of-a-subscription: The discounts of a subscription.
-- index: core.discounts_by_subscription
select * from core.discounts
where merchant_id = :'merchant_id' and subscription_id = :'subscription_id';

-- invoices-of-a-customer: The invoices of a customer, newest first.
-- index: core.invoices_by_customer
select *
from core.invoices
where merchant_id = :'merchant_id' and customer_id = :'customer_id'
order by created_at desc
limit 100;

-- invoices-of-a-subscription: The invoices of a subscription.
-- index: core.invoices_by_subscription
select * from core.invoices
where merchant_id = :'merchant_id' and subscription_id = :'subscription_id';

-- invoices-due: Open invoices that are due, longest first.
-- index: core.invoices_open
select * from core.invoices
where status = 'open' and due_at < :'until'
order by due_at
limit 100;

-- lines-of-an-invoice: The lines of an invoice.
-- index: core.invoice_lines_by_invoice
select * from core.invoice_lines
where merchant_id = :'merchant_id' and invoice_id = :'invoice_id';

-- credit-notes-of-an-invoice: The reductions of an invoice.
-- index: core.credit_notes_by_invoice
select * from core.credit_notes
where merchant_id = :'merchant_id' and invoice_id = :'invoice_id';
