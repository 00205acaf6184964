"""Values in PostgreSQL's configuration file."""


def setting(name: str, value: str) -> str:
    """Return one line that sets a variable to a text, whatever characters that holds."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"{name} = '{escaped}'"
