"""Python processes in which likemind cannot be imported: what we save must load without us."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_BEFORE = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "likemind":
            raise ImportError("blocked")
sys.meta_path.insert(0, Blocked())
import torch
torch.set_num_threads(1)
"""
_AFTER = """
try:
    import likemind
except ImportError:
    pass
else:
    sys.exit("likemind could be imported")
"""


def without_likemind(code: str, *arguments: Path | str, cwd: Path) -> list[str]:
    """Run code with these ``sys.argv[1:]`` where likemind is out of reach, and return the lines that it prints."""
    command = [sys.executable, "-c", _BEFORE + textwrap.dedent(code) + _AFTER, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
