"""The tree that categories stand in: WordNet's or any other from a file, or categories below their groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from likemind.errors import LikemindError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from likemind.datasets.evaluation_set import EvaluationSet, Item


def paths_of(data: EvaluationSet, items: Sequence[Item]) -> dict[str, list[str]]:
    """Return the path from the root to each category that is in the tree.

    Raises:
        LikemindError: The file named in ``dataset.json`` is no tree, or holds none of the categories.
    """
    if not data.description.tree:
        return {item.category: ["", f"group {item.group}", item.category] for item in items if item.group}
    path = data.path / data.description.tree
    parents = read_tree(path)
    found = {item.category: _upwards(item.category, parents, path) for item in items if item.category in parents}
    if not found:
        raise LikemindError(f"{path} holds none of the items' categories: name its leaves as the categories are named")
    return found


def read_tree(path: Path) -> dict[str, str]:
    """Read lines of ``parent child``, such as BREEDS' ``class_hierarchy.txt``; of two parents the first one counts.

    Returns:
        Child → parent.

    Raises:
        LikemindError: The file cannot be read, or a line has not two names.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LikemindError(f"{path} cannot be read as text ({error}): check the path") from None
    parents: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        names = line.split("\t") if "\t" in line else line.split()
        if not line.strip():
            continue
        if len(names) != 2:
            raise LikemindError(f"{path}: line {number} is not “parent child”: mend it")
        parents.setdefault(names[1].strip(), names[0].strip())
    return parents


def _upwards(name: str, parents: dict[str, str], path: Path) -> list[str]:
    found = [name]
    while found[-1] in parents:
        found.append(parents[found[-1]])
        if len(found) > len(parents) + 1:
            raise LikemindError(f"{path} goes round in a circle at {name!r}: mend it")
    return found[::-1]
