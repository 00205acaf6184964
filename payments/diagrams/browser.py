"""A headless Chromium as a command: a picture of a page, or its document after its scripts have run."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from payments.errors import UsageError

NAMES = ("chromium", "chromium-browser", "google-chrome")
# Time that the page's own timers may pass; the clock on the wall is far less. A busy machine lays graphs out late.
VIRTUAL_MILLISECONDS = 120_000
TIMEOUT_SECONDS = 180
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    f"--virtual-time-budget={VIRTUAL_MILLISECONDS}",
)


def find_browser() -> str | None:
    """Return the path of an installed Chromium or Chrome, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def take_picture(url: str, target: Path, *, width: int, height: int) -> None:
    """Write what a window of ``width`` by ``height`` pixels shows of the page as a PNG file.

    Raises:
        UsageError: no browser is installed, or it did not make the picture.
    """
    target.unlink(missing_ok=True)
    answer = _run(f"--window-size={width},{height}", f"--screenshot={target}", url)
    if not target.is_file():
        raise UsageError(f"the browser took no picture of {url}: {_last_line(answer.stderr)}")


def read_page(url: str, *, width: int = 1600, height: int = 1000) -> str:
    """Return the page's document as HTML after its scripts have run.

    Raises:
        UsageError: no browser is installed, or it did not show the page.
    """
    answer = _run(f"--window-size={width},{height}", "--dump-dom", url)
    if answer.returncode != 0:
        raise UsageError(f"the browser did not show {url}: {_last_line(answer.stderr)}")
    return answer.stdout


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    browser = find_browser()
    if browser is None:
        raise UsageError(f"no browser found: install one of {', '.join(NAMES)}")
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses its sandbox to root
    with tempfile.TemporaryDirectory(prefix="browser ", ignore_cleanup_errors=True) as profile:
        return subprocess.run(
            [browser, *FLAGS, *as_root, f"--user-data-dir={profile}", *arguments],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1]
