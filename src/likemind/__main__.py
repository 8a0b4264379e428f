"""``python -m likemind`` is ``likemind``."""

import sys

try:
    from likemind.cli import main
except KeyboardInterrupt:
    sys.stderr.write("likemind: interrupted; the same command continues\n")
    exec("")  # noqa: S102  as in ``main``
    sys.exit(130)

main()
