"""What identifies a history."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

SECOND = 1_000_000
HOUR = 3600 * SECOND
DAY = 24 * HOUR


@dataclass(frozen=True)
class Plan:
    """The number of charges, the days they spread over, the seed, the last day; moments are microseconds since 1970."""

    transactions: int
    days: int
    seed: int
    end: date

    @property
    def name(self) -> str:
        """The history in a line."""
        return f"simulation of {self.transactions} charges in {self.days} days until {self.end}, seed {self.seed}"

    @property
    def start(self) -> date:
        """The first day."""
        return self.end - timedelta(days=self.days - 1)

    @property
    def start_moment(self) -> int:
        """The first moment of the history."""
        return self.end_moment - self.days * DAY

    @property
    def middle_moment(self) -> int:
        """The moment from which the shop's tracker and the customers' applications write the newer schema version."""
        return self.end_moment - self.days * DAY // 2

    @property
    def end_moment(self) -> int:
        """The first moment after the history."""
        midnight = datetime.combine(self.end + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
        return int(midnight.timestamp()) * SECOND

    @property
    def end_month(self) -> int:
        """The month of the last day, counted from year 0."""
        return self.end.year * 12 + self.end.month - 1
