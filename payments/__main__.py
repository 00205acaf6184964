"""``python -m payments`` is the command ``payments``."""

from payments.cli import main

main()
