"""The endpoint that takes webhooks: one process, one path, and an answer only when the delivery is durable."""

import asyncio
import logging
import signal
import socket
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType

import uvicorn
from pymongo.errors import PyMongoError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingestion.inbox.secrets import endpoint_secrets
from ingestion.inbox.signature import HEADER, SignatureError, verify
from ingestion.inbox.store import receive
from payments.errors import UsageError
from payments.systems.documents.client import database

PATH = "/webhooks/stripe"
LARGEST_BODY = 1_000_000
_BODY_SECONDS = 15
_STOP_SECONDS = 10

log = logging.getLogger("payments.inbox")


class _BodyError(Exception):
    """A body that is not taken: status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def application(secrets: tuple[str, ...]) -> Starlette:
    """Return the endpoint: ``POST /webhooks/stripe``, and ``GET /health`` with what was answered since the start.

    200 is stored, known or refused for good (see :mod:`ingestion.inbox.store`); 400 is not signed as it should be, 408
    and 413 a body that is too slow or too large; 503 asks to send it again.
    """
    counts: Counter[str] = Counter()

    def answer(status: int, result: str) -> Response:
        counts[result] += 1
        headers = {"Retry-After": "10"} if status == 503 else None
        return JSONResponse({"result": result}, status_code=status, headers=headers)

    async def webhook(request: Request) -> Response:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                body = await _read_body(request)
            signed_at = verify(request.headers.get(HEADER), body, secrets, datetime.now(UTC))
        except _BodyError as error:
            return answer(error.status, str(error))
        except TimeoutError:
            return answer(408, "too slow")
        except ClientDisconnect:
            return answer(400, "broken off")
        except SignatureError as error:
            log.warning("refused: %s", error)
            return answer(400, str(error))
        try:
            return answer(200, await run_in_threadpool(receive, body, signed_at))
        except (PyMongoError, UsageError) as error:
            log.error("not stored: %s", str(error).splitlines()[0])
            return answer(503, "not stored")

    async def health(_: Request) -> Response:
        return JSONResponse(dict(counts))

    return Starlette(routes=[Route(PATH, webhook, methods=["POST"]), Route("/health", health)])


def serve(host: str, port: int, ready: Callable[[str], None]) -> None:
    """Take webhooks until the process gets SIGTERM or SIGINT; what is being answered then is answered first.

    ``ready`` is called with the address once connections are accepted; port 0 is any free one.

    Raises:
        UsageError: the port is taken, a secret cannot be used, or the store cannot be reached.
    """
    secrets = endpoint_secrets()
    database()
    listener = _listener(host, port)
    configuration = uvicorn.Config(
        application(secrets),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=_STOP_SECONDS,
    )
    # The server raises the signal that ended it once more when it is done: that is then the end of this process.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    ready(f"http://{host}:{listener.getsockname()[1]}{PATH}")
    uvicorn.Server(configuration).run(sockets=[listener])


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UsageError(f"{host}:{port} cannot be listened on ({reason}): choose another --port or --host.") from None


async def _read_body(request: Request) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > LARGEST_BODY:
        raise _BodyError(413, "too large")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise _BodyError(413, "too large")
    return bytes(body)
