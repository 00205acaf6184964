"""Whole files in the document store (GridFS), encrypted, under ids that follow from their content.

A file counts as there when its entry in ``<bucket>.files`` is: the entry is written after the last chunk. What a crash
leaves are chunks without an entry, which the next ``put`` of the same content removes. One writer a file at a time: the
lock is kept by the operational store and ends with the connection.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gridfs import GridFSBucket
from gridfs.errors import CorruptGridFile, NoFile
from psycopg import Connection
from pymongo.database import Database

from payments.errors import UsageError
from payments.vault import DecryptionError

Store = Database[dict[str, Any]]
Note = Mapping[str, Any]


@dataclass(frozen=True)
class StoredFile:
    """A file by its bucket and its id, which is the same for the same content."""

    store: Store
    bucket: str
    file_id: str

    def put(self, connection: Connection, seal: Callable[[], tuple[bytes, Note]], opens: Callable[..., object]) -> bool:
        """Store the file unless it is there and can be opened.

        Args:
            connection: any connection to the operational store, for the lock.
            seal: gives the bytes, encrypted, and what to note beside them.
            opens: takes both and raises ``DecryptionError`` when they cannot be opened: the key was another one.

        Returns:
            Whether it had to be stored.
        """
        with connection.transaction():
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{self.bucket}/{self.file_id}",)
            )
            if self._is_usable(opens):
                return False
            self.store[f"{self.bucket}.files"].delete_one({"_id": self.file_id})
            self.store[f"{self.bucket}.chunks"].delete_many({"files_id": self.file_id})
            content, note = seal()
            bucket = GridFSBucket(self.store, self.bucket)
            bucket.upload_from_stream_with_id(self.file_id, self.file_id, content, metadata=dict(note))
            return True

    def read(self) -> tuple[bytes, Note]:
        """Return the bytes, still encrypted, and what stands beside them.

        Raises:
            UsageError: there is no such file, or a part of it is missing.
        """
        try:
            with GridFSBucket(self.store, self.bucket).open_download_stream(self.file_id) as file:
                return file.read(), file.metadata or {}
        except NoFile:
            raise UsageError(f"There is no file {self.file_id} in {self.bucket}: check the id.") from None
        except CorruptGridFile:
            raise UsageError(
                f"The file {self.file_id} in {self.bucket} is not whole: restore it, or add it again."
            ) from None

    def _is_usable(self, opens: Callable[..., object]) -> bool:
        try:
            opens(*self.read())
        except (UsageError, DecryptionError):
            return False
        return True
