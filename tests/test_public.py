from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import likemind

COMMANDS = ("embed", "judgements", "teach", "label", "align", "evaluate", "report", "demo", "data", "doctor")
HEAVY = ("torch", "timm", "numpy", "scipy", "sklearn", "pyarrow", "matplotlib", "PIL")


def run(code: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *args]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize("name", likemind.__all__)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(likemind, name)
    assert name in dir(likemind)
    if name in COMMANDS:
        assert inspect.isfunction(value)
        assert value.__doc__
    if not name.startswith("_") and name != "RECIPES":
        assert value.__module__ == likemind._PUBLIC[name]
        assert value.__doc__


def test_every_public_name_is_known_to_type_checkers() -> None:
    source = Path(likemind.__file__).read_text(encoding="utf-8")
    for name, module in likemind._PUBLIC.items():
        assert f"    from {module} import {name} as {name}\n" in source


def test_no_other_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'oracle'"):
        likemind.oracle  # noqa: B018
    assert set(COMMANDS) <= set(likemind.__all__)


def test_doctor_is_the_function() -> None:
    from likemind import doctor, report
    from likemind.diagnosis import doctor as real

    assert doctor is real
    assert callable(report)
    assert likemind.doctor is real


def test_names_stay_functions_when_modules_are_imported_first() -> None:
    """A module of a function's name would hide it from then on."""
    done = run("""
        import importlib, pkgutil, likemind
        for module in pkgutil.walk_packages(likemind.__path__, "likemind."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        names = "embed judgements teach label align evaluate report demo data doctor"
        for name in [*names.split(), "load_backbone", "open_images", "read_judgements"]:
            assert type(getattr(likemind, name)).__name__ == "function", name
        print("all")
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all\n", "")


def test_import_is_light() -> None:
    code = f"""
        import sys
        import likemind
        print(*[name for name in {HEAVY!r} if name in sys.modules])
        likemind.LikemindError
        print(*[name for name in {HEAVY!r} if name in sys.modules])
    """
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["", ""]


@pytest.mark.parametrize("args", [["--version"], ["--help"], [], *([command, "--help"] for command in COMMANDS)])
def test_help_waits_for_nothing_heavy(args: list[str]) -> None:
    code = f"""
        import sys
        from likemind.cli import run, app
        code = run(app, sys.argv[1:])
        print(*[name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
        sys.exit(code)
    """
    done = run(code, *args)
    assert done.stderr.split() == []
    assert done.returncode == (0 if args else 2)
    if args == ["--version"]:
        assert done.stdout == f"likemind {likemind.__version__}\n"
    else:
        assert "Usage: " in done.stdout
        if len(args) == 2:
            assert args[0] in done.stdout


def test_help_names_every_command() -> None:
    done = subprocess.run([sys.executable, "-m", "likemind", "-h"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout
    done = subprocess.run([sys.executable, "-m", "likemind", "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"likemind {likemind.__version__}\n")


def test_a_command_has_the_options_of_its_function() -> None:
    """One verb each, with the same names; what differs is listed here."""
    import typer.main

    from likemind.cli import app

    group = typer.main.get_command(app)
    assert set(group.commands) == set(COMMANDS)  # type: ignore[attr-defined]
    only_there = {"pictures", "penalties", "mixes", "columns", "server"}
    only_here = {"as_json", "column", "no_pictures", "penalty", "mix", "join", "help"}
    for name in COMMANDS:
        command = group.commands[name]  # type: ignore[attr-defined]
        ours = {parameter.name for parameter in command.params} - only_here
        theirs = set(inspect.signature(getattr(likemind, name)).parameters) - only_there
        assert ours == theirs, name
        for parameter in command.params:
            if parameter.name in theirs:
                default = inspect.signature(getattr(likemind, name)).parameters[parameter.name].default
                if default is not inspect.Parameter.empty and parameter.default is not None:
                    assert str(parameter.default) == str(default), (name, parameter.name)
