"""The command line: parse, call the function of the same name, print. No logic lives here."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from likemind.cli.judging import data, demo, doctor, evaluate, report
from likemind.cli.making import align, embed, judgements, label, teach
from likemind.errors import LikemindError, interrupted, shown

if TYPE_CHECKING:
    from collections.abc import Callable

_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    name="likemind",
    help="Give any vision model a human sense of similarity (AligNet, Muttenthaler et al., Nature 2025).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback(invoke_without_command=True)
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but the outcome.")] = False,
) -> None:
    if version:
        from likemind import __version__

        typer.echo(f"likemind {__version__}")
        raise typer.Exit
    logger = logging.getLogger("likemind")
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


for command in (embed, judgements, teach, label, align, evaluate, report, demo, data, doctor):
    app.command()(command)


def main() -> None:
    """Run a command; exit code 2 and one sentence for the user's mistake, 130 after Ctrl-C, 1 for ours."""
    code = run(app)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and done; Python's clearing up may take a second
    exec("")  # noqa: S102  forgets a Ctrl-C inside an exec, for which ``python -m`` kills itself whatever the exit code
    sys.exit(code)


def run(command: Callable[..., Any], args: list[str] | None = None) -> int:
    """Call a command and return its exit code."""
    try:
        command(args=args, standalone_mode=True)
    except LikemindError as error:
        sys.stderr.write(f"likemind: {shown(str(error))}\n")
        return 2
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        sys.stderr.write(f"likemind: {shown(str(error.filename))} is too long for a path: choose a shorter one\n")
        return 2
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException as error:
        if not interrupted(error):
            raise
        code = _INTERRUPTED
    else:
        code = 0
    if code == _INTERRUPTED:  # typer turns Ctrl-C into this code without a word
        sys.stderr.write("likemind: interrupted; the same command continues\n")
    return code
