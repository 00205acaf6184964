"""The stream as one process: reader, loader and copies, watched and taken up again when a store comes back."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from ingestion.cdc.copies import CopyReport, advance_copies
from ingestion.cdc.generation import last_landed
from ingestion.cdc.stream import Step, follow
from ingestion.oltp import stopped_tables
from ingestion.raw_zone import Position
from payments.errors import UnreachableError

_AGAIN_SECONDS = 1.0
_RATE_SECONDS = 10.0


@dataclass
class View:
    """What a stream does at the moment.

    ``changes`` since it began, and how many a second came in the last ten; the lag of the log behind its server (bytes)
    and of the raw zone behind the last commit that landed (seconds); the lag of the copies behind the raw zone
    (seconds), documents written and refused; records that went to quarantine; the last position; why tables are
    stopped; and why nothing moves.
    """

    changes: int = 0
    changes_per_second: float = 0.0
    lag_bytes: int = 0
    lag_seconds: float = 0.0
    copies: CopyReport = field(default_factory=CopyReport)
    documents: int = 0
    refused_documents: int = 0
    dead_letters: int = 0
    position: Position | None = None
    stopped: dict[str, str] = field(default_factory=dict)
    waiting: str | None = None
    _recent: deque[tuple[float, int]] = field(default_factory=deque)

    def add(self, step: Step) -> None:
        """Take in what a step did."""
        now = time.monotonic()
        self.waiting = None
        self.changes += step.changes
        self.lag_bytes = step.lag_bytes
        if step.report is not None:
            self.dead_letters += sum(counts.quarantined for counts in step.report.entities)
            self.lag_seconds, self.position = step.lag_seconds, step.position or self.position
            self.stopped = stopped_tables(last_landed())
        self._recent.append((now, step.changes))
        while now - self._recent[0][0] > _RATE_SECONDS:
            self._recent.popleft()
        since = max(now - self._recent[0][0], 0.1)
        self.changes_per_second = sum(changes for _, changes in self._recent) / since


def supervise(is_stopped: Callable[[], bool]) -> Iterator[View]:
    """Run the stream until told to stop; yield what it does, about five times a second.

    A store that goes away is waited for. Raises ``UsageError`` when the stream cannot begin, or when the slot is not
    where it was left.
    """
    view = View()
    with _copying(view) as wake:
        has_begun = False
        while not is_stopped():
            try:
                for step in follow(is_stopped):
                    has_begun = True
                    view.add(step)
                    if step.report is not None:
                        wake()
                    yield view
            except UnreachableError as error:
                if not has_begun:
                    raise
                view.waiting = str(error)
                until = time.monotonic() + _AGAIN_SECONDS
                while time.monotonic() < until and not is_stopped():
                    yield view
                    time.sleep(_AGAIN_SECONDS / 10)


@contextmanager
def _copying(view: View) -> Iterator[Callable[[], None]]:
    """Keep the copies current in a thread of their own: a slow document store holds up nothing else."""
    has_landed, is_over = threading.Event(), threading.Event()

    def copy() -> None:
        while not is_over.is_set():
            has_landed.wait(None if view.copies.failure is None else _AGAIN_SECONDS)
            has_landed.clear()
            view.copies = advance_copies()
            view.documents += view.copies.written
            view.refused_documents += view.copies.refused

    with ThreadPoolExecutor(1, thread_name_prefix="copies") as pool:
        copying = pool.submit(copy)

        def wake() -> None:
            if copying.done():
                copying.result()  # which raises: it ends only here
            has_landed.set()

        try:
            wake()
            yield wake
        finally:
            is_over.set()
            has_landed.set()
    copying.result()
