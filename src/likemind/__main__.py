"""``python -m likemind`` is ``likemind``."""

import sys

try:
    from likemind.cli import main
except KeyboardInterrupt:
    sys.stderr.write("likemind: interrupted; the same command continues\n")
    sys.exit(130)

main()
