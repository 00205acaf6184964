"""The regular care of the operational store: a job of one step, and a schedule that somebody has to turn on."""

import dagster as dg

from payments.systems.oltp.maintenance import maintain


@dg.op
def maintain_operational_store() -> None:
    """Make the next partitions, expire authorizations, settle what is due, seal the ledger."""
    done = maintain()
    dg.get_dagster_logger().info(
        f"partitions made: {len(done.partitions)}, authorizations expired: {done.expired_authorizations}, "
        f"days settled: {done.settled_days}, keys forgotten: {done.forgotten_keys}, "
        f"postings sealed: {done.sealed_postings}"
    )


@dg.job(description="Regular care of the operational store, also as the command `payments maintain`.")
def maintenance() -> None:
    """Run one round of maintenance."""
    maintain_operational_store()


every_ten_minutes = dg.ScheduleDefinition(job=maintenance, cron_schedule="*/10 * * * *")
