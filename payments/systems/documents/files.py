"""Whole files in the document store (GridFS), under ids that follow from their content.

A file counts as there when its entry in ``<bucket>.files`` is: the entry is written after the last chunk. What a crash
leaves are chunks without an entry, which the next ``put`` of the same content removes. One writer a file at a time: the
lock is kept by the operational store and ends with the connection.
"""

from collections.abc import Callable, Mapping
from typing import Any

from gridfs import GridFSBucket
from gridfs.errors import CorruptGridFile, NoFile
from psycopg import Connection
from pymongo.database import Database

from payments.errors import UsageError

Store = Database[dict[str, Any]]


def put(
    store: Store,
    connection: Connection,
    bucket: str,
    file_id: str,
    make: Callable[[], tuple[bytes, Mapping[str, Any]]],
) -> bool:
    """Store a file unless it is there; ``make`` gives its bytes, encrypted, and what to note beside them.

    Args:
        store: the document store.
        connection: any connection to the operational store, for the lock.
        bucket: the GridFS bucket.
        file_id: the id, the same for the same content.
        make: called only when the file is not there.

    Returns:
        Whether it had to be stored.
    """
    with connection.transaction():
        connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{bucket}/{file_id}",))
        if store[f"{bucket}.files"].find_one({"_id": file_id}, {"_id": 1}) is not None:
            return False
        store[f"{bucket}.chunks"].delete_many({"files_id": file_id})
        content, note = make()
        GridFSBucket(store, bucket).upload_from_stream_with_id(file_id, file_id, content, metadata=dict(note))
        return True


def read(store: Store, bucket: str, file_id: str) -> tuple[bytes, Mapping[str, Any]]:
    """Return the bytes of a file, still encrypted, and what stands beside them.

    Raises:
        UsageError: there is no such file, or a part of it is missing.
    """
    try:
        with GridFSBucket(store, bucket).open_download_stream(file_id) as file:
            return file.read(), file.metadata or {}
    except NoFile:
        raise UsageError(f"There is no file {file_id} in {bucket}: check the id.") from None
    except CorruptGridFile:
        raise UsageError(f"The file {file_id} in {bucket} is not whole: restore it, or add it again.") from None
