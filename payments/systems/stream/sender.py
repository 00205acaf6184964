"""Sending messages: all of them are acknowledged, in their order, or the sender says why not."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from payments.errors import UsageError
from payments.systems.stream.client import producer_properties

_WAIT_SECONDS = 0.2
# Trying again would end as before.
_REFUSALS = (
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
)


class Outgoing(NamedTuple):
    """A message to be sent to a partition of a topic."""

    topic: str
    partition: int
    key: str
    value: str
    headers: list[tuple[str, str | bytes | None]]


class ForgottenError(Exception):
    """The broker does not know what it acknowledged before, or a topic is gone: what was sent may be lost."""


class Sender:
    """Sends messages, one call at a time. While the broker is away, it waits."""

    def __init__(self) -> None:
        self._errors: list[KafkaError] = []
        self._producer = self._new()

    def send(self, messages: Iterable[Outgoing], is_stopped: Callable[[], bool]) -> bool:
        """Send messages and return whether all were acknowledged: False only when told to stop before.

        Raises:
            ForgottenError: the broker lost what it had; nothing is known about these messages, and the sender has
                begun anew.
            UsageError: the broker refuses one of them.
        """
        try:
            for message in messages:
                if not self._queued(message, is_stopped):
                    return self._give_up()
            while self._producer.flush(_WAIT_SECONDS):
                if is_stopped():
                    return self._give_up()
            if self._errors:
                raise KafkaException(self._errors[0])
        # The client lets a report of an error run with its own error already raised, which Python reports as the other.
        except (KafkaException, SystemError) as failure:
            cause = failure if isinstance(failure, KafkaException) else failure.__cause__
            error: KafkaError | None = cause.args[0] if isinstance(cause, KafkaException) else None
            self._give_up()
            if error is not None and error.code() in _REFUSALS:
                raise UsageError(f"The broker refuses a message: {error.str()}.") from failure
            raise ForgottenError(str(failure)) from failure
        return True

    def _queued(self, message: Outgoing, is_stopped: Callable[[], bool]) -> bool:
        topic, partition, key, value, headers = message
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, partition=partition, headers=headers)
            except BufferError:  # as many as fit into memory are under way
                if is_stopped():
                    return False
                self._producer.poll(_WAIT_SECONDS)
            else:
                return True

    def _give_up(self) -> bool:
        self._producer.purge()
        self._errors = []
        self._producer = self._new()
        return False

    def _new(self) -> Producer:
        errors = self._errors

        def note(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                errors.append(error)

        return Producer({**producer_properties(), "on_delivery": note})
