"""What the browser looks at: the dbt docs site and the Dagster UI, each on a free port for as long as it is needed."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from payments.errors import UsageError
from payments.settings import PROJECT_ROOT
from payments.systems.processes import LOOPBACK, free_port, wait_until

START_SECONDS = 240
STOP_SECONDS = 20
INSTANCE = "telemetry: {enabled: false}\nnux: {enabled: false}\n"  # the welcome dialog would cover the graph
LOCATION_QUERY = """{
    workspaceOrError {
        ... on Workspace {
            locationEntries {
                loadStatus
                locationOrLoadError { ... on RepositoryLocation { name } ... on PythonError { message } }
            }
        }
    }
}"""


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing for each request."""


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP on the loopback and give its address.

    Raises:
        UsageError: the folder has no index page.
    """
    if not (folder / "index.html").is_file():
        raise UsageError(f"{folder} holds no docs site: run make docs first")
    server = ThreadingHTTPServer((LOOPBACK, 0), partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_dagster(module: str = "orchestration.definitions") -> Iterator[str]:
    """Start the Dagster UI for the definitions of a module, with an instance of its own, and give its address.

    Raises:
        UsageError: the UI did not start, or the module cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="dagster ", ignore_cleanup_errors=True) as home:
        (Path(home) / "dagster.yaml").write_text(INSTANCE, encoding="utf-8")
        log_path = Path(home) / "webserver.log"
        port = free_port()
        command = [sys.executable, "-m", "dagster_webserver", "-m", module, "-h", LOOPBACK, "-p", str(port)]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                env=os.environ | {"DAGSTER_HOME": home, "DAGSTER_DISABLE_TELEMETRY": "1", "PATH": _path()},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            address = f"http://{LOOPBACK}:{port}"
            wait_until(lambda: process.poll() is not None or _location(address) is not None, START_SECONDS)
            location = _location(address)
            if location is None:
                lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise UsageError(f"the Dagster UI did not start: {lines[-1] if lines else 'it said nothing'}")
            if "message" in location:
                raise UsageError(f"Dagster cannot load {module}: {str(location['message']).splitlines()[0]}")
            yield address
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _path() -> str:
    """Return the search path with the commands of this environment (dbt) first, whether or not it is activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])


def _location(address: str) -> dict[str, Any] | None:
    """Return what the UI says of its one code location once that is loaded: a failed one has a ``message``."""
    query = urllib.request.Request(  # noqa: S310 # the address is our own
        f"{address}/graphql",
        data=json.dumps({"query": LOCATION_QUERY}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(query, timeout=10) as answer:  # noqa: S310 # the address is our own
            entries = json.load(answer)["data"]["workspaceOrError"]["locationEntries"]
    except OSError:
        return None
    loaded = [entry["locationOrLoadError"] for entry in entries if entry["loadStatus"] == "LOADED"]
    return loaded[0] if loaded else None
