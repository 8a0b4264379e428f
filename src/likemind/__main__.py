"""``python -m likemind`` is ``likemind``."""

import sys

try:
    from likemind.cli import main
except BaseException as error:
    from likemind.errors import interrupted

    if not interrupted(error):
        raise
    sys.stderr.write("likemind: interrupted; the same command continues\n")
    exec("")  # noqa: S102  as in ``main``
    sys.exit(130)

main()
