"""Changes of several documents as one, and removal on request.

Where the server has transactions, steps are one transaction, repeated while it conflicts with others. Where it has
none, the steps are written to the journal ``pending_changes`` first: a crash between them is finished by
:func:`finish_pending`, and :func:`read_together` never shows half of a change. Each step grows a field, so that
finishing twice changes nothing; a step that a newer message has overtaken counts as done.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pymongo import ASCENDING
from pymongo.client_session import ClientSession
from pymongo.errors import DuplicateKeyError, OperationFailure, WriteError
from pymongo.read_concern import ReadConcern

from payments.errors import UsageError
from payments.systems.documents.capabilities import capabilities
from payments.systems.documents.definitions import definition_of
from payments.systems.documents.versioned import (
    ATTEMPTS,
    DOCUMENTS_A_BATCH,
    DURABLE,
    Document,
    Outcome,
    Remove,
    SetOwned,
    Step,
    Store,
    Upsert,
    apply,
    batches,
    durable,
    ids_of,
    new_document,
    sound,
    update_of,
    withdraw_removed,
)

_VALIDATION = 121  # the server's code of a document that its validator refuses


def remove(collection: str, ids: Iterable[str], reason: str) -> int:
    """Remove documents on request, each with its tombstone in ``deletions``, and return how many there were."""
    store = durable()
    removed = 0
    for batch in batches(ids, DOCUMENTS_A_BATCH):
        removed += store[collection].count_documents({"_id": {"$in": list(batch)}})
        change_together([Remove(collection, batch, reason)])
    return removed


def change_together(steps: Sequence[Step], *, in_transaction: bool | None = None) -> list[Outcome]:
    """Do all of the steps or none, and return what each did; a step that is late or repeated counts as done.

    ``in_transaction`` says how; by default as the server can.

    Raises:
        ValueError: a step is unsound (see the other functions), or sets fields of which none grows.
        LookupError: a document whose fields are to be set does not exist; nothing was changed.
        pymongo.errors.WriteError: the validator refuses a step; nothing was changed.
    """
    checked = [sound(step) for step in steps]
    if any(isinstance(step, SetOwned) and step.grows is None for step in checked):
        raise ValueError("A field set together with other documents needs one that grows, or a repetition could win.")
    store = durable()
    if in_transaction is None:
        in_transaction = capabilities(store.client).transactions
    outcomes = _in_transaction(store, checked) if in_transaction else _by_journal(store, checked)
    # A removal and an insertion at the same moment do not see each other: what has a tombstone now goes.
    for step in checked:
        if not isinstance(step, SetOwned):
            withdraw_removed(store, step.collection, ids_of(step))
    return outcomes


def finish_pending(touching: Sequence[str] | None = None) -> int:
    """Finish the changes that a crash left in the journal, oldest first, and return how many were finished.

    It may run at any time, also beside the writer of a change. ``touching`` limits it to changes of these documents
    (``<collection>/<document id>``).

    Raises:
        UsageError: a change is refused by the server; the others were finished, and it stays in the journal.
    """
    store = durable()
    journal = store["pending_changes"]
    query = {} if touching is None else {"touches": {"$in": list(touching)}}
    finished, refused = 0, []
    for entry in list(journal.find(query).sort("started_at", ASCENDING)):
        try:
            for step in map(_step_of, entry["steps"]):
                apply(store, step, None)
                if not isinstance(step, SetOwned):
                    withdraw_removed(store, step.collection, ids_of(step))
        except (WriteError, ValueError) as error:
            refused.append(f"{entry['_id']} ({str(error).splitlines()[0]})")
            continue
        journal.delete_one({"_id": entry["_id"]})
        finished += 1
    if refused:
        raise UsageError(f"Changes cannot be finished: {'; '.join(refused)}. They stay in pending_changes.")
    return finished


def read_together(
    references: Sequence[tuple[str, str]], *, in_transaction: bool | None = None
) -> list[Document | None]:
    """Return documents, given as (collection, id), as they stood at one moment: all of a change or nothing of it.

    Raises:
        UsageError: a change that touches them cannot be finished.
    """
    store = durable()
    if in_transaction is None:
        in_transaction = capabilities(store.client).transactions
    if in_transaction:
        with store.client.start_session() as session:
            return session.with_transaction(
                lambda inner: _read(store, references, inner), read_concern=ReadConcern("snapshot")
            )
    touching = [f"{collection}/{document_id}" for collection, document_id in references]
    # Read, see that no change is under way, read again: when both agree they show the moment between them.
    for _ in range(ATTEMPTS):
        first = _read(store, references, None)
        if store["pending_changes"].find_one({"touches": {"$in": touching}}) is not None:
            finish_pending(touching)
        elif _read(store, references, None) == first:
            return first
    raise UsageError(f"{', '.join(touching)} keep changing: read them again in a moment.")


def _in_transaction(store: Store, steps: Sequence[Step]) -> list[Outcome]:
    def body(session: ClientSession) -> list[Outcome]:
        outcomes = [apply(store, step, session) for step in steps]
        _require_all(steps, outcomes)
        return outcomes

    with store.client.start_session() as session:
        for attempt in range(ATTEMPTS):
            try:
                # The driver repeats it while the server says that it conflicted with another one.
                return session.with_transaction(body, read_concern=ReadConcern("snapshot"), write_concern=DURABLE)
            except DuplicateKeyError:  # inserted by another writer since this transaction began to look
                if attempt == ATTEMPTS - 1:
                    raise
    raise AssertionError("every attempt returns or raises")


def _require_all(steps: Sequence[Step], outcomes: Sequence[Outcome]) -> None:
    for step, outcome in zip(steps, outcomes, strict=True):
        if isinstance(step, SetOwned) and outcome is Outcome.MISSING:
            raise LookupError(f"There is no {step.collection}/{step.document_id}: nothing was changed.")


def _by_journal(store: Store, steps: Sequence[Step]) -> list[Outcome]:
    _refuse_misfits(store, steps)
    entry = {
        "_id": f"chg_{uuid.uuid4().hex}",
        "touches": [f"{step.collection}/{document_id}" for step in steps for document_id in ids_of(step)],
        "steps": [_entry_of(step) for step in steps],
        "started_at": datetime.now(UTC),
        "schema_version": 1,
    }
    store["pending_changes"].insert_one(entry)
    outcomes = [apply(store, step, None) for step in steps]
    store["pending_changes"].delete_one({"_id": entry["_id"]})
    return outcomes


def _refuse_misfits(store: Store, steps: Sequence[Step]) -> None:
    """Raise what the server would raise halfway: each document as it would become is shown to its validator first."""
    for step in steps:
        if isinstance(step, Remove):
            continue
        (document_id,) = ids_of(step)
        found = store[step.collection].find_one({"_id": document_id})
        if isinstance(step, SetOwned):
            if found is None:
                _require_all([step], [Outcome.MISSING])
            would_be = {**(found or {}), **step.fields}
        elif found is None:
            would_be = new_document(step)
        else:
            update = update_of(step)
            would_be = {name: value for name, value in found.items() if name not in update.get("$unset", {})}
            would_be |= update["$set"]
        misfit = {"$nor": [definition_of(step.collection).validator]}
        try:
            refused = list(store.aggregate([{"$documents": [would_be]}, {"$match": misfit}]))
        except OperationFailure:
            return  # a server that cannot be asked so: what it refuses later stays in the journal and is reported
        if refused:
            raise WriteError(f"{step.collection}/{document_id} would not fit its validator", _VALIDATION)


def _entry_of(step: Step) -> Document:
    entry = {"collection": step.collection, "ids": ids_of(step), "owner": None, "grows": None}
    match step:
        case Upsert():
            content = {name: value for name, value in step.document.items() if name != "_id"}
            return {**entry, "kind": "upsert", "grows": "version", "content": content}
        case SetOwned():
            return {**entry, "kind": "set", "owner": step.owner, "grows": step.grows, "content": dict(step.fields)}
        case Remove():
            return {**entry, "kind": "remove", "content": {"reason": step.reason}}


def _step_of(entry: Document) -> Step:
    collection, ids, content = entry["collection"], entry["ids"], entry["content"]
    match entry["kind"]:
        case "upsert":
            return Upsert(collection, {"_id": ids[0], **content})
        case "set":
            return SetOwned(collection, ids[0], entry["owner"], content, entry["grows"])
        case _:
            return Remove(collection, ids, content["reason"])


def _read(store: Store, references: Sequence[tuple[str, str]], session: ClientSession | None) -> list[Document | None]:
    return [store[collection].find_one({"_id": document_id}, session=session) for collection, document_id in references]
