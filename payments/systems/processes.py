"""Processes that outlive the command that started them: found again by pid, verified by their command line."""

import fcntl
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from payments.errors import UsageError

LOOPBACK = "127.0.0.1"
_POLL_SECONDS = 0.02
_PROC = Path("/proc/self/stat")
# Children of this process by pid: they must be reaped here, or they stay zombies for as long as it lives.
_children: dict[int, subprocess.Popen[bytes]] = {}


def command_line(pid: int) -> list[str] | None:
    """Return the arguments of a live process, or None when it is gone or only a zombie is left of it."""
    _reap(pid)
    if not _PROC.exists():
        return _command_line_by_ps(pid)
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0]
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if state in "ZX":
        return None
    return [os.fsdecode(argument) for argument in arguments.split(b"\0")]


def exists(pid: int) -> bool:
    """Say whether the system still knows the pid, zombies included."""
    _reap(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def working_in(folder: Path) -> list[int]:
    """Return the pids of live processes whose working folder this is or was; without /proc none can be told."""
    names = {str(folder), f"{folder} (deleted)"}
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):  # gone meanwhile, or of another user
            if str(link.readlink()) in names:
                found.append(int(link.parent.name))
    return found


def kill(pid: int) -> None:
    """End a process at once."""
    with _gone_is_fine():
        os.kill(pid, signal.SIGKILL)


def launch(command: list[str], *, pid_file: Path, log_file: Path, cwd: Path) -> int:
    """Start a process that outlives this one and return its pid, which it writes to ``pid_file`` before anything else.

    A shell writes the file and then becomes the command, so there is no moment in which the process runs unrecorded.
    """
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            ["/bin/sh", "-c", 'echo $$ > "$0" && exec "$@"', str(pid_file), *command],
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _children[process.pid] = process
    return process.pid


def terminate(pid: int, seconds: float) -> None:
    """Ask a process to end and wait until it has; kill it when it has not ended in time."""
    with _gone_is_fine():
        os.kill(pid, signal.SIGTERM)
        if not wait_until(lambda: command_line(pid) is None, seconds):
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: command_line(pid) is None, seconds)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Poll a condition until it holds; return False when it did not within the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def require_free_port(port: int, store: str, variable: str, patience_seconds: float = 0) -> None:
    """Raise a UsageError that names the variable to set when another program listens on the port.

    Args:
        port: a loopback port.
        store: whose port it is, for the message.
        variable: the variable that sets the port, for the message.
        patience_seconds: how long the remains of a killed server may still hold it.
    """
    if not wait_until(lambda: _is_free(port), patience_seconds):
        raise UsageError(f"Port {port} of {store} is taken by another program: set {variable} to a free port.")


def free_port() -> int:
    """Return a loopback port that nobody listens on now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do: connections of a server that has ended do not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def accepts_connections(port: int) -> bool:
    """Say whether somebody listens on the loopback port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def exclusively(lock_file: Path) -> Iterator[None]:
    """Let one process at a time start or stop a server."""
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    with lock_file.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _reap(pid: int) -> None:
    child = _children.get(pid)
    if child is not None and child.poll() is not None:
        del _children[pid]


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except ProcessLookupError:
        return


def _command_line_by_ps(pid: int) -> list[str] | None:
    """Where there is no /proc: ps gives one line, which is returned as a single argument."""
    shown = subprocess.run(
        ["/bin/ps", "-o", "stat=,command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, command = shown.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else [command.strip()]
