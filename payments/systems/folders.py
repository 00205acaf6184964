"""Where an embedded server may keep its data, and as whom it runs.

PostgreSQL refuses to run as root, so a root command runs it as an unprivileged user. That user must be able to walk to
the data and to the binaries. Modes of parent folders are never changed: where the state folder is out of reach (below a
home of mode 0700, say), the server lives in a folder of its own under /var/lib, and a pointer in the state folder says
where.
"""

import contextlib
import hashlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from payments.errors import UsageError

_POINTER = "location"
_OUT_OF_REACH_HOME = Path("/var/lib")


@dataclass(frozen=True)
class ServerUser:
    """The account that a server process runs as: ``name`` is None for the account of this process."""

    name: str | None
    uid: int
    gid: int

    def run(
        self, command: list[str], *, cwd: Path = Path("/"), env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as this user and return its result, both outputs captured as text in ``stdout``."""
        is_other = self.name is not None
        return subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            user=self.uid if is_other else None,
            group=self.gid if is_other else None,
            extra_groups=[] if is_other else None,
        )

    def can_run(self, program: Path) -> bool:
        """Say whether this user can reach and execute a file."""
        return self._test("-x", program)

    def can_enter(self, folder: Path) -> bool:
        """Say whether this user can walk to a folder."""
        return self._test("-x", folder)

    def own(self, folder: Path) -> None:
        """Make an existing folder belong to this user, closed to all others."""
        if self.name is not None:
            os.chown(folder, self.uid, self.gid)
        folder.chmod(0o700)

    def own_file(self, file: Path) -> None:
        """Make an existing file belong to this user, closed to all others."""
        if self.name is not None:
            os.chown(file, self.uid, self.gid)
        file.chmod(0o600)

    def _test(self, flag: str, path: Path) -> bool:
        return self.run(["/bin/sh", "-c", 'test "$0" "$1"', flag, str(path)]).returncode == 0


def server_user() -> ServerUser:
    """Return the user for servers that refuse root: nobody when this process is root, else the user it runs as.

    Raises:
        UsageError: this process is root and the system has no account nobody.
    """
    if os.geteuid() != 0:
        return ServerUser(None, os.geteuid(), os.getegid())
    try:
        account = pwd.getpwnam("nobody")
    except KeyError:
        raise UsageError(
            "PostgreSQL cannot run as root and there is no user nobody: run as an ordinary user."
        ) from None
    return ServerUser(account.pw_name, account.pw_uid, account.pw_gid)


def server_folder(home: Path, name: str, user: ServerUser) -> Path:
    """Return the folder of a server, made when it is missing: below ``home`` when its user can reach that.

    Once a server lives elsewhere, the pointer file ``<home>/<name>/location`` keeps it there.
    """
    folder = home.resolve() / name
    folder.mkdir(parents=True, exist_ok=True)
    pointer = folder / _POINTER
    if pointer.exists():
        elsewhere = Path(pointer.read_text(encoding="utf-8").strip())
        elsewhere.mkdir(parents=True, exist_ok=True)
        return elsewhere
    if user.can_enter(folder):
        return folder
    digest = hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
    elsewhere = _OUT_OF_REACH_HOME / f"payments-{digest}" / name
    elsewhere.mkdir(parents=True, exist_ok=True)
    for made in (elsewhere.parent, elsewhere):
        made.chmod(0o755)
    pointer.write_text(f"{elsewhere}\n", encoding="utf-8")
    return elsewhere


def remove_server_folder(home: Path, name: str) -> None:
    """Delete the folder of a stopped server, wherever it lives, and what the state folder says about it."""
    folder = home.resolve() / name
    pointer = folder / _POINTER
    if pointer.exists():
        elsewhere = Path(pointer.read_text(encoding="utf-8").strip())
        shutil.rmtree(elsewhere, ignore_errors=True)
        with contextlib.suppress(OSError):  # the folders of other servers may still stand beside it
            elsewhere.parent.rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files below a folder that a running server may be changing."""
    total = 0
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total


def write_private(path: Path, text: str, user: ServerUser | None = None) -> None:
    """Write a file that only its owner, by default this process' user, may read; at no moment others can."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    if user is not None and user.name is not None:
        os.chown(path, user.uid, user.gid)


def reachable_copy(site: Path, parts: Sequence[str], program: Path, destination: Path, user: ServerUser) -> Path:
    """Return `site` when `user` can run `program` in it, else a folder with copies of its parts that they can run.

    Args:
        site: the folder that the parts lie in; programs find their libraries by the way from one part to another.
        parts: the folders to copy, relative to ``site``; one that does not exist is left out.
        program: a program in one of them, relative to ``site``.
        destination: where the copy goes; an existing copy is used again.
        user: who will run the program.
    """
    if user.can_run(site / program):
        return site
    if not destination.exists():
        aside = destination.with_name(destination.name + ".partial")
        shutil.rmtree(aside, ignore_errors=True)
        skipped = shutil.ignore_patterns("include", "__pycache__")
        for part in parts:
            if (site / part).is_dir():
                shutil.copytree(site / part, aside / part, symlinks=True, ignore=skipped)
        for copied in (aside, *aside.rglob("*")):
            if not copied.is_symlink():
                copied.chmod(0o755 if copied.is_dir() or copied.stat().st_mode & 0o100 else 0o644)
        aside.rename(destination)
    return destination
