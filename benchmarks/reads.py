"""What a cache could save: reads by key from PostgreSQL while payments run, beside a round trip that reads nothing.

    python benchmarks/reads.py [--clients C] [--seconds S]

A cache that may not serve yesterday's money has to ask PostgreSQL whether what it holds still stands, which is a round
trip: the empty query. A dictionary in the process is the other end: no trip, and no idea whether another process has
moved the money since. Left to itself PostgreSQL plans a read of a partitioned table anew each time, as the plan for one
partition looks cheaper than the one for any; the second half of the table has it plan once. pgbench reads with prepared
statements; as many other clients of it pay meanwhile.
"""

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from oltp import Driver, Load, open_merchants, show
from simulate import own_server

from payments.systems.oltp.connection import connect

FIRST, LAST = 3, 66
READS = {
    "an empty query": "select 1;",
    "the balance of a merchant": "\\set m random(3, 66)\nselect ledger.available('acct_bench' || :m, 'EUR');",
    "a charge by id": """
\\set m random(3, 66)
select to_jsonb(c) from core.charges as c where c.merchant_id = 'acct_bench' || :m and c.charge_id = 'ch_bench' || :m;
""",
}
PLANS = {"": "", ", planned once": "-c plan_cache_mode=force_generic_plan"}
_LOOKUPS = 1_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=10)
    arguments = parser.parse_args()
    with own_server(), tempfile.TemporaryDirectory() as readers, tempfile.TemporaryDirectory() as payers:
        reading = Driver(arguments.clients, arguments.seconds, Path(readers))
        paying = Driver(arguments.clients, arguments.seconds, Path(payers))
        with connect(autocommit=True) as connection:
            open_merchants(connection, LAST)
            connection.execute(
                """
                select core.confirm_payment_intent(
                    m.merchant_id,
                    core.create_payment_intent(
                        m.merchant_id, 'cus_bench' || m.n || 'x1', 5000, 'EUR', 'pm_bench' || m.n || 'x1'
                    ),
                    p_charge_id => 'ch_bench' || m.n
                )
                from (select merchant_id, substring(merchant_id from '[0-9]+$') as n from core.merchants) as m
                """
            )
            paying.pay(FIRST, LAST, 2_000)
            connection.execute("vacuum analyze")
        loads = {}
        for planned, options in PLANS.items():
            for what, script in READS.items():
                with ThreadPoolExecutor(1) as pool:
                    payments = pool.submit(paying.payments, FIRST, LAST)
                    loads[what + planned] = replace(reading, options=options).script(script)
                    payments.result()
    loads["a dictionary of this process"] = dictionary()
    title = f"{arguments.clients} clients read while as many pay, {arguments.seconds} s each"
    show(title, loads, loads["an empty query"], digits=3)


def dictionary() -> Load:
    """Look charges up in a dictionary."""
    held = {(f"acct_bench{n}", f"ch_bench{n}"): {"amount_minor": n} for n in range(LAST)}
    keys = list(held)
    began = time.perf_counter()
    for n in range(_LOOKUPS):
        held[keys[n % LAST]]
    seconds = time.perf_counter() - began
    each = seconds / _LOOKUPS * 1000
    return Load(_LOOKUPS / seconds, each, each, each)


if __name__ == "__main__":
    main()
