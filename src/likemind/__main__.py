"""``python -m likemind`` is ``likemind``."""

from likemind.cli import main

main()
