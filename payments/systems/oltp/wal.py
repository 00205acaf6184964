"""Write-ahead log on disk: which timeline it belongs to, and what of it the archive still lacks."""

import os
import re
import shutil
import struct
from pathlib import Path

from payments.systems.oltp.data_folders import PARTIAL, rename_durably
from payments.systems.oltp.postgres import Cluster

_SEGMENT = re.compile(r"([0-9A-F]{8})([0-9A-F]{16})")
_SEGMENT_BYTES = 16 * 1024 * 1024
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")
# The head of every WAL page: magic, flags, timeline, and the address that the page was written for.
_PAGE_HEAD = struct.Struct("=HHIQ")


def timeline_of(cluster: Cluster) -> int:
    """Return the timeline that a data folder has come to; a folder that is gone is judged by the archive."""
    names = _names(cluster.data / "pg_wal") or _names(cluster.archive)
    return max((int(match[1], 16) for name in names if (match := _SEGMENT.fullmatch(name))), default=1)


def archive_rest(cluster: Cluster) -> None:
    """Bring into the archive what a stopped server did not: whole segments, and the one it was writing last.

    Its timeline must be at its end: a server that went on would write the last segment anew. Nothing happens before the
    first backup.
    """
    if not cluster.archive.exists():
        return
    oldest = oldest_archived(cluster.archive)
    for name in _names(cluster.data / "pg_wal"):
        path, archived = cluster.data / "pg_wal" / name, cluster.archive / name
        if archived.exists():
            continue
        is_wanted = _HISTORY.fullmatch(name) is not None or (
            oldest is not None and name[8:] >= oldest and _SEGMENT.fullmatch(name) is not None and _is_written(path)
        )
        if is_wanted:
            copy_durably(cluster, path, archived)


def copy_durably(cluster: Cluster, source: Path, destination: Path) -> None:
    """Copy a file for the server's user: aside, synced, renamed."""
    partial = destination.with_name(destination.name + PARTIAL)
    shutil.copyfile(source, partial)
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    cluster.user.own_file(partial)
    rename_durably(partial, destination)


def oldest_archived(archive: Path) -> str | None:
    """Return the place (log and segment, whatever the timeline) of the first segment in the archive."""
    return min((match[2] for name in _names(archive) if (match := _SEGMENT.fullmatch(name))), default=None)


def newest_archived(archive: Path, timeline: int) -> int | None:
    """Return the position at which the last archived segment of a timeline begins."""
    matches = [
        match for name in _names(archive) if (match := _SEGMENT.fullmatch(name)) and int(match[1], 16) == timeline
    ]
    return max((_begin_of(match[2]) for match in matches), default=None)


def remove_before(archive: Path, place: str) -> None:
    """Delete archived WAL before a place (log and segment), on every timeline."""
    for path in archive.iterdir():
        # The names of part-filled segments and of backup markers begin like those of segments.
        match = _SEGMENT.match(path.name)
        if match is not None and match[2] < place:
            path.unlink()


def place_of(lsn: str) -> str:
    """Return the place of the segment that holds a position: the later part of its name."""
    number = lsn_number(lsn)
    return f"{number >> 32:08X}{(number & 0xFFFFFFFF) // _SEGMENT_BYTES:08X}"


def parents_of(cluster: Cluster, timeline: int) -> dict[int, int]:
    """Return the timelines that one descends from, each with the position (LSN) at which it was left."""
    name = f"{timeline:08X}.history"
    # The archiver may not have had its turn since the timeline began.
    file = next((path for path in (cluster.archive / name, cluster.data / "pg_wal" / name) if path.exists()), None)
    lines = [] if file is None else file.read_text(encoding="utf-8").splitlines()
    fields = [line.split() for line in lines if line.strip() and not line.startswith("#")]
    return {int(parent): lsn_number(left_at) for parent, left_at, *_ in fields}


def lsn_number(text: str) -> int:
    """Return a position as a number: ``1/80`` is 4,294,967,424."""
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _begin_of(place: str) -> int:
    return (int(place[:8], 16) << 32) + int(place[8:], 16) * _SEGMENT_BYTES


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def _is_written(segment: Path) -> bool:
    """Say whether a segment of 16 MiB holds WAL of its own: one recycled for later use still holds older pages."""
    with segment.open("rb") as file:
        head = file.read(_PAGE_HEAD.size)
    if len(head) < _PAGE_HEAD.size:
        return False
    _, _, timeline, address = _PAGE_HEAD.unpack(head)
    name = segment.name
    return bool(address == _begin_of(name[8:]) and timeline == int(name[:8], 16))
