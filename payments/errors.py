"""The error that a user can mend."""


class UsageError(Exception):
    """A wrong command, setting or environment; the message is one line that says what to do."""


class UnreachableError(UsageError):
    """A store that cannot be reached now; what runs on its own may try again."""
