"""The error that a user can mend."""


class UsageError(Exception):
    """A wrong command, setting or environment; the message is one line that says what to do."""
