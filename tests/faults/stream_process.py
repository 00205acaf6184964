"""The command ``payments stream`` as a process of its own that fails where it is told to.

The failures are planted from here, around functions that are named: the program itself has no fail points. Processes
are forked from one that has imported everything, so that each starts in milliseconds.
"""

import errno
import faulthandler
import importlib
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

_FORK_SERVER = multiprocessing.get_context("forkserver")
_FORK_SERVER.set_forkserver_preload(["__main__", "tests.faults.preloaded"])


@dataclass(frozen=True)
class Failure:
    """What happens at the ``count``-th call of a function.

    Args:
        where: the full name of a function or method, ``module.Class.method``.
        when: ``before`` or ``after`` that call; ``instead`` of this and every later one, where nothing is done.
        count: the call, from 1.
        how: ``kill`` (SIGKILL), ``pause`` (SIGSTOP) or ``full`` (the disk is full, as the function would say).
    """

    where: str
    when: str = "before"
    count: int = 1
    how: str = "kill"

    def __str__(self) -> str:
        return f"{self.how} {self.when} {self.where}:{self.count}"


@dataclass(frozen=True)
class Run:
    """A run of the command.

    Args:
        arguments: those of the command line.
        environment: variables to set; an empty one is unset.
        log: the file for both outputs.
        failures: what goes wrong.
        constants: values by the full name of a constant of the program, to make a small load meet its limits.
        file_bytes: no file may grow beyond this, as if the disk were full.
    """

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    log: Path
    failures: tuple[Failure, ...] = ()
    constants: Mapping[str, Any] = field(default_factory=dict)
    file_bytes: int | None = None


def start(run: Run) -> ForkServerProcess:
    """Start ``payments`` as a process of its own."""
    process = _FORK_SERVER.Process(target=_run, args=(run,))
    process.start()
    return process


def _run(run: Run) -> None:
    with run.log.open("ab") as file:
        for output in (1, 2):
            os.dup2(file.fileno(), output)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # where it stands, when it does not end
    for name, value in run.environment.items():
        os.environ[name] = value
        if not value:
            del os.environ[name]
    from payments.cli import main
    from payments.settings import settings

    settings.cache_clear()
    for name, value in run.constants.items():
        owner, attribute = _owner(name)
        if not hasattr(owner, attribute):
            raise AttributeError(f"no constant {name}")
        setattr(owner, attribute, value)
    for failure in run.failures:
        _plant(failure)
    if run.file_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (run.file_bytes, run.file_bytes))
    sys.argv = ["payments", *run.arguments]
    main()


def _plant(failure: Failure) -> None:
    owner, name = _owner(failure.where)
    whole: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if failure.when == "instead":
            return None if calls >= failure.count else whole(*arguments, **named)
        if failure.when == "before" and calls == failure.count:
            _fail(failure.how)
        answer = whole(*arguments, **named)
        if failure.when == "after" and calls == failure.count:
            _fail(failure.how)
        return answer

    setattr(owner, name, failing)


def _fail(how: str) -> None:
    if how == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "pause": signal.SIGSTOP}[how])


def _owner(full_name: str) -> tuple[Any, str]:
    """Return the module or class that holds what is named, and its name there."""
    parts = full_name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:-1]:
            owner = getattr(owner, part)
        getattr(owner, parts[-1])
        return owner, parts[-1]
    raise ModuleNotFoundError(f"nothing is named {full_name}")
