"""A round of maintenance: partitions made ahead, expiry, settlement, seals; the next round finds nothing to do."""

from datetime import UTC, datetime, timedelta

import psycopg

from payments.systems.oltp.maintenance import maintain
from tests.systems.shop import Shop


def test_a_round_does_what_is_due_and_the_next_finds_nothing(oltp: psycopg.Connection) -> None:
    shop = Shop(oltp).open()
    shop.pay(1_000)
    for authorized_at in (datetime.now(UTC) - timedelta(days=8), datetime.now(UTC)):
        intent = oltp.execute(
            "select core.create_payment_intent(%s, %s, 500, 'EUR', %s, p_capture_method => 'manual')",
            (shop.merchant_id, shop.customer_id, shop.payment_method_id),
        ).fetchone()
        assert intent is not None
        oltp.execute(
            "select core.confirm_payment_intent(%s, %s, p_confirmed_at => %s)",
            (shop.merchant_id, intent[0], authorized_at),
        )
    oltp.execute(
        """
        insert into ops.idempotency_keys (merchant_id, idempotency_key, operation, request_hash, response, created_at)
        values
        (%(merchant)s, 'old', 'refunds.create', '', '{}', now() - interval '25 hours'),
        (%(merchant)s, 'young', 'refunds.create', '', '{}', now() - interval '23 hours')
        """,
        {"merchant": shop.merchant_id},
    )

    done = maintain()
    assert (done.expired_authorizations, done.settled_days, done.forgotten_keys) == (1, 1, 1)
    assert done.sealed_postings == 2
    month = datetime.now(UTC).strftime("%Y_%m")
    assert oltp.execute("select to_regclass(%s) is not null", (f"ledger.entries_{month}",)).fetchone() == (True,)
    assert oltp.execute("select sum(row_count) from ops.stray_rows()").fetchone() == (0,)
    assert oltp.execute("select count(*) from ledger.broken_seals()").fetchone() == (0,)

    again = maintain()
    assert (again.partitions, again.expired_authorizations, again.settled_days, again.forgotten_keys) == ((), 0, 0, 0)
