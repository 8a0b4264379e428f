"""``python -m likemind`` is ``likemind``."""

import sys

try:
    from likemind.cli import main
except KeyboardInterrupt:
    sys.exit(130)

main()
