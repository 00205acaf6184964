"""A network that fails: a TCP relay on loopback that can hold what passes, cut every connection, and heal."""

import socket
import struct
import threading
from contextlib import suppress
from types import TracebackType

_BLOCK = 65_536


class Proxy:
    """Relays connections to a port of this machine until told otherwise."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._flows = threading.Event()
        self._flows.set()
        self._is_cut = False
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._listener.close()
        self.cut()

    def hold(self) -> None:
        """Let nothing through, as a network that loses packets does; connections stay open."""
        self._flows.clear()

    def cut(self) -> None:
        """Break every connection without a farewell, and refuse new ones."""
        with self._lock:
            self._is_cut = True
            broken, self._sockets = self._sockets, []
        for one in broken:
            with suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._flows.set()

    def heal(self) -> None:
        """Let everything through again."""
        with self._lock:
            self._is_cut = False
        self._flows.set()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._connect(client)

    def _connect(self, client: socket.socket) -> None:
        with self._lock:
            if self._is_cut:
                client.close()
                return
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:  # the server is down: so is the way to it
                client.close()
                return
            server.settimeout(None)
            self._sockets += [client, server]
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=self._relay, args=(source, target), daemon=True).start()

    def _relay(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while block := source.recv(_BLOCK):
                self._flows.wait()
                target.sendall(block)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
