"""BREEDS: superclasses of ImageNet whose training and test photographs show different subclasses.

The rule is that of Santurkar, Tsipras and Madry 2021 ("BREEDS: Benchmarks for Subpopulation Shift", ICLR, section 3 and
appendix A), as their public generator draws it (``MadryLab/robustness``, ``tools/breeds_helpers.py``, MIT), written
anew from its description. The hierarchy comes from their published files, ``MadryLab/BREEDS-Benchmarks``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from likemind.errors import LikemindError, few, first_line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from likemind.artifacts import PathLike

FILES = ("class_hierarchy.txt", "dataset_class_info.json", "node_names.txt")
ROOT, LIVING, NONLIVING = "n00001740", "n00004258", "n00021939"
"""Nodes of the hierarchy: everything, what lives, what does not."""

SEED = 2
"""Of the published splits: one ``numpy.random.RandomState(2)`` for all superclasses of a task, in order."""

Kind = Literal["rand", "good", "bad"]


@dataclass(frozen=True)
class Rule:
    """How a task is cut from the hierarchy.

    Attributes:
        level: Of the superclasses: the longest way from the root.
        subclasses: Of each superclass; half of them make the source, half the target. Superclasses with fewer are left
            out.
        ancestor: Of all superclasses, or None.
    """

    level: int
    subclasses: int
    ancestor: str | None = None


TASKS = {
    "entity13": Rule(3, 20),
    "entity30": Rule(4, 8),
    "living17": Rule(5, 4, LIVING),
    "nonliving26": Rule(5, 4, NONLIVING),
}


@dataclass(frozen=True)
class Superclass:
    """A class to be recognised: its WordNet id and name, and the ImageNet classes that stand for it on either side."""

    wnid: str
    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]


class Hierarchy:
    """The tree of ImageNet's classes, as BREEDS modified WordNet's.

    Attributes:
        classes: WordNet id → number, 0 to 999, of every class that has a place in the tree.
        levels: Node → longest way from the root.

    Example:
        >>> tree = Hierarchy.load("data/breeds")  # doctest: +SKIP
        >>> len(tree.classes), len(tree.at_level(3))  # doctest: +SKIP
        (890, 29)
    """

    def __init__(self, edges: Iterable[tuple[str, str]], classes: dict[str, int], names: dict[str, str]) -> None:
        parents: dict[str, set[str]] = {}
        for parent, child in edges:
            parents.setdefault(child, set()).add(parent)
        self.classes = {wnid: number for wnid, number in classes.items() if wnid in parents}
        self._names = names
        self._children: dict[str, set[str]] = {}
        todo = set(self.classes)
        while todo:
            above = {(parent, node) for node in todo for parent in parents.get(node, ())}
            todo = {parent for parent, _ in above if parent not in self._children}
            for parent, node in above:
                self._children.setdefault(parent, set()).add(node)
        self.levels = self._levels()

    @classmethod
    def load(cls, folder: PathLike, *, classes: Collection[str] | None = None) -> Hierarchy:
        """Read the three published files.

        Args:
            folder: Holds ``class_hierarchy.txt``, ``dataset_class_info.json`` and ``node_names.txt``.
            classes: WordNet ids to keep, such as Tiny-ImageNet's; all if None.

        Raises:
            LikemindError: A file is missing or not as it must be.
        """
        place = Path(folder)
        missing = [name for name in FILES if not (place / name).is_file()]
        if missing:
            raise LikemindError(
                f"{place} lacks {few(missing)} of BREEDS' class hierarchy: fetch it with `likemind data breeds`"
            )
        edges = [_fields(place / FILES[0], line, None) for line in _lines(place / FILES[0])]
        names = dict(_fields(place / FILES[2], line, "\t") for line in _lines(place / FILES[2]))
        try:
            rows = json.loads((place / FILES[1]).read_text(encoding="utf-8"))
            known = {str(wnid): int(number) for number, wnid, _ in rows}
        except (ValueError, TypeError) as error:
            raise LikemindError(
                f"{place / FILES[1]} is not BREEDS' list of (number, WordNet id, name) ({first_line(error)}): "
                "fetch it again with `likemind data breeds`"
            ) from None
        return cls(edges, {w: n for w, n in known.items() if classes is None or w in classes}, names)

    def _levels(self) -> dict[str, int]:
        """Longest ways from the root, by relaxing level after level; a circle would never end."""
        levels = {ROOT: 0}
        todo, depth = {ROOT}, 0
        while todo:
            depth += 1
            if depth > len(self._children) + 1:
                raise LikemindError(
                    "BREEDS' class hierarchy holds a circle: fetch it again with `likemind data breeds`"
                )
            todo = {child for node in todo for child in self._children.get(node, ())}
            levels.update(dict.fromkeys(todo, depth))
        return levels

    def name(self, node: str) -> str:
        """Return a node's name for people."""
        return self._names.get(node, node)

    def children(self, node: str) -> list[str]:
        """Return a node's children, in order."""
        return sorted(self._children.get(node, ()))

    def leaves(self, node: str) -> list[str]:
        """Return the ImageNet classes at and below a node, in order; what lies below a class belongs to it."""
        found, todo = {node} & self.classes.keys(), set(self.children(node))
        while todo:
            found |= todo & self.classes.keys()
            todo = {child for inner in todo - self.classes.keys() for child in self.children(inner)}
        return sorted(found)

    def below(self, node: str) -> set[str]:
        """Return a node and all its descendants."""
        found, todo = {node}, {node}
        while todo:
            todo = {child for inner in todo for child in self.children(inner)}
            found |= todo
        return found

    def at_level(self, level: int, ancestor: str | None = None) -> list[str]:
        """Return the nodes at a level, in order; only those below ``ancestor`` if one is given."""
        inside = self.levels.keys() if ancestor is None else self.below(ancestor)
        return sorted(node for node, at in self.levels.items() if at == level and node in inside)


def _lines(path: Path) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise LikemindError(f"{path} cannot be read ({first_line(error)}): fetch it again") from None


def _fields(path: Path, line: str, separator: str | None) -> tuple[str, str]:
    fields = line.strip().split(separator)
    if len(fields) != 2:
        raise LikemindError(f"{path}: {line.strip()!r} is not two fields: fetch it again with `likemind data breeds`")
    return fields[0], fields[1]


def breeds(task: str, hierarchy: Hierarchy, kind: Kind = "rand") -> list[Superclass]:
    """Return a published task's superclasses, in order.

    Args:
        task: ``entity13``, ``entity30``, ``living17`` or ``nonliving26``.
        hierarchy: The published one, with all classes.
        kind: As for ``split``; the paper's main figures are of ``rand``.

    Raises:
        LikemindError: There is no such task.

    Example:
        >>> living = breeds("living17", Hierarchy.load("data/breeds"))  # doctest: +SKIP
        >>> living[0].name, living[0].source  # doctest: +SKIP
        ('salamander', ('n01631663', 'n01632458'))
    """
    if task not in TASKS:
        raise LikemindError(f"there is no BREEDS task {task!r}: choose one of {', '.join(TASKS)}")
    return split(hierarchy, TASKS[task], kind)


def split(
    hierarchy: Hierarchy, rule: Rule, kind: Kind = "rand", *, balanced: bool = True, seed: int = SEED
) -> list[Superclass]:
    """Cut superclasses from a hierarchy, and each one's subclasses into source and target.

    Args:
        hierarchy: Where they come from.
        rule: Which superclasses, and of how many subclasses.
        kind: ``rand`` draws subclasses and cuts in the drawn order; ``good`` gives near kin to both sides; ``bad`` to
            one side, so that the shift is large.
        balanced: The same number of subclasses for all; otherwise as many as each has, less one where that is odd.
        seed: Of the draws.

    Returns:
        The superclasses in the order of their WordNet ids; source and target of one are equally many.

    Raises:
        LikemindError: The rule finds no superclass, or cannot cut one in equal halves.
    """
    if kind not in get_args(Kind):
        raise LikemindError(f"there is no split {kind!r}: choose one of {', '.join(get_args(Kind))}")
    if rule.subclasses < 2 or rule.subclasses % 2:
        raise LikemindError(f"{rule.subclasses} subclasses cannot be halved: ask for an even number above 0")
    rng = np.random.RandomState(seed)  # the published draws are this generator's
    found = []
    for node in hierarchy.at_level(rule.level, rule.ancestor):
        leaves = len(hierarchy.leaves(node))
        if leaves >= rule.subclasses:
            half = (rule.subclasses if balanced else leaves) // 2
            source, target = _halves(_kin(hierarchy, node), half, kind, rng)
            if not len(source) == len(target) == half or set(source) & set(target):
                raise LikemindError(f"{hierarchy.name(node)!r} cannot be cut in two halves of {half} by {kind!r}")
            found.append(Superclass(node, hierarchy.name(node), tuple(source), tuple(target)))
    if not found:
        where = f" below {hierarchy.name(rule.ancestor)!r}" if rule.ancestor else ""
        raise LikemindError(
            f"no node at level {rule.level}{where} has {rule.subclasses} classes: choose another level or fewer"
        )
    return found


def _kin(hierarchy: Hierarchy, node: str) -> list[list[str]]:
    """Return the classes below each child of the first descendant that has several."""
    children = hierarchy.children(node)
    while len(children) == 1:
        children = hierarchy.children(children[0])
    return [hierarchy.leaves(child) for child in children]


def _halves(kin: list[list[str]], half: int, kind: Kind, rng: np.random.RandomState) -> tuple[list[str], list[str]]:
    if kind == "rand":
        drawn = rng.choice(sorted(wnid for group in kin for wnid in group), 2 * half, replace=False).tolist()
        return drawn[:half], drawn[half:]
    source: list[str] = []
    target: list[str] = []
    spare: list[str] = []
    for group in sorted(kin, key=len, reverse=True):
        if kind == "bad":
            side = source if len(source) <= len(target) and len(source) < half else target
            room = half - len(side)
            spare += group[room:] if room else []
            side += group[:room]
        else:
            room = half - len(source)
            cut = min(1 if len(group) == 1 else len(group) // 2, room)
            source += group[:cut]
            target += group[cut : cut + half - len(target)]
    if kind == "bad":
        source, target = _filled(source, half, spare), _filled(target, half, spare)
    return source, target


def _filled(side: list[str], half: int, spare: list[str]) -> list[str]:
    """Fill a side from what no side had room for: both from its start, as the published generator does."""
    return side + spare[: half - len(side)]
