"""Writing the documents of a history: what is missing, and nothing twice."""

from collections.abc import Callable
from typing import Any

from pymongo.database import Database

from payments.simulation.collection import Collection, Document
from payments.systems.documents.collections import indexes_afterwards

_BATCH = 4_000


def write_collection(
    database: Database[Document], collection: Collection, is_new: bool, advance: Callable[[str, int, int], None]
) -> int:
    """Insert the documents of a collection that are not there yet, in unordered batches.

    Args:
        database: the document store.
        collection: what should be there.
        is_new: nothing of it is there, so there is no need to look.
        advance: called with the collection's name, the documents just looked after, and how many there are in all.

    Returns:
        How many documents were inserted.

    Raises:
        pymongo.errors.BulkWriteError: a document does not fit the validator of its collection.
    """
    with indexes_afterwards(collection.name):
        return _write_missing(database, collection, is_new, advance)


def _write_missing(
    database: Database[Document], collection: Collection, is_new: bool, advance: Callable[[str, int, int], None]
) -> int:
    inserted = 0
    for start in range(0, collection.count, _BATCH):
        stop = min(start + _BATCH, collection.count)
        present = set() if is_new else _present(database, collection, start, stop)
        if len(present) < stop - start:
            documents = [
                document
                for document in collection.documents(start, stop)
                if document is not None and document["_id"] not in present
            ]
            if documents:
                database[collection.name].insert_many(documents, ordered=False)
                inserted += len(documents)
        advance(collection.name, stop - start, collection.count)
    return inserted


def _present(database: Database[Document], collection: Collection, start: int, stop: int) -> set[Any]:
    """Return which documents of a range are there; ids grow with the place, so a range of places is one of keys."""
    ids = collection.ids(start, stop)
    found = database[collection.name].find({"_id": {"$gte": ids[0], "$lte": ids[-1]}}, {"_id": 1})
    return {document["_id"] for document in found} & set(ids)
