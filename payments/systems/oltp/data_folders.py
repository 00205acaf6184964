"""Which data folder of the embedded PostgreSQL is the primary, which the standby, and which was set aside.

One small file says so and is replaced as a whole: a failover or a restore becomes true in the moment of one rename, and
a command that is killed before or after it leaves nothing in between.
"""

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from payments.errors import UsageError

FIRST = "data"
PARTIAL = ".partial"
_FILE = "roles.json"


@dataclass(frozen=True)
class Abandoned:
    """A timeline that a restore left: until that moment (UTC) it was what the store had lived through."""

    timeline: int
    until: datetime


@dataclass(frozen=True)
class Roles:
    """Names of data folders by role; ``aside`` is the last former primary, fenced and kept until the next one."""

    primary: str = FIRST
    standby: str | None = None
    is_synchronous: bool = False
    aside: str | None = None
    abandoned: tuple[Abandoned, ...] = ()

    def timeline_at(self, moment: datetime) -> int | None:
        """Return the timeline that the store lived on at a moment, or None for the one it lives on now."""
        return next((left.timeline for left in self.abandoned if moment < left.until), None)


def read_roles(folder: Path) -> Roles:
    """Return the roles of a server's folder; without a file there is one primary and nothing else.

    Raises:
        UsageError: the file cannot be understood.
    """
    path = folder / _FILE
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Roles(
            primary=stored["primary"],
            standby=stored["standby"],
            is_synchronous=stored["is_synchronous"],
            aside=stored["aside"],
            abandoned=tuple(
                Abandoned(left["timeline"], datetime.fromisoformat(left["until"])) for left in stored["abandoned"]
            ),
        )
    except FileNotFoundError:
        return Roles()
    except (ValueError, KeyError, TypeError):
        raise UsageError(f"{path} cannot be read: it says which data folder is the primary, restore it.") from None


def write_roles(folder: Path, roles: Roles) -> None:
    """Replace the roles in one step that survives a crash."""
    stored = {
        "primary": roles.primary,
        "standby": roles.standby,
        "is_synchronous": roles.is_synchronous,
        "aside": roles.aside,
        "abandoned": [{"timeline": left.timeline, "until": left.until.isoformat()} for left in roles.abandoned],
    }
    write_durably(folder / _FILE, json.dumps(stored, indent=2) + "\n")


def write_durably(path: Path, text: str) -> None:
    """Write a file aside, sync it and rename it into place."""
    aside = path.with_name(path.name + PARTIAL)
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    rename_durably(aside, path)


def rename_durably(source: Path, destination: Path) -> None:
    """Rename a file or folder over a file or nothing, and sync the folder that names it."""
    source.replace(destination)
    handle = os.open(destination.parent, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def next_name(folder: Path) -> str:
    """Return a name for a new data folder that no folder has, nor any role, whose folder may be gone."""
    roles = read_roles(folder)
    known = [*(path.name for path in folder.iterdir()), roles.primary, roles.standby or "", roles.aside or ""]
    numbers = [int(match[1]) for name in known if (match := re.match(r"node-(\d+)", name))]
    return f"node-{max(numbers, default=1) + 1}"
