"""What ``payments status`` tells about a store."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class StoreStatus:
    """One store as it was found: never assumed, always asked.

    ``where`` holds no password. ``up_since`` is UTC. ``missing`` says why the store cannot be used when it is not
    running, else which capabilities this server lacks.
    """

    store: str
    is_running: bool
    version: str | None
    where: str
    up_since: datetime | None
    size_bytes: int | None
    missing: tuple[str, ...]
