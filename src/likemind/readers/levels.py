"""Levels (Muttenthaler et al. 2025): odd-one-out answers at three levels of abstraction, as a pickle or a table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from likemind.errors import LikemindError, few
from likemind.readers.names import hashed, joined, key, seconds
from likemind.readers.unpickle import load_plain
from likemind.triplets import Triplets, read_table

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from likemind.readers.names import ItemNames

IMAGES = ("image1Path", "image2Path", "image3Path")
NEEDED = (*IMAGES, "selected_image")
_KEPT = "exp_trial"


def read_levels(path: Path, items: ItemNames | None, source: str | None) -> tuple[Triplets, list[str]]:
    """Read ``pruned_dataset.pkl``: a dictionary of participant → list of trials.

    A trial is a dictionary with ``image1Path``, ``image2Path``, ``image3Path``, ``selected_image`` (the odd one out)
    and, where they are there, ``triplet_type`` (the level), ``exp_trial_type`` and ``rt`` (milliseconds). Trials whose
    ``exp_trial_type`` is not ``exp_trial``, such as training, are dropped; repeats are kept. Participants are hashed.

    Args:
        path: The pickle, of builtin types alone, or a Parquet table of the same trials with ``participant_id``.
        items: Ids of the images; the file's names are joined to them without folders and ending. The names themselves
            if None.
        source: Of the triplets; ``human`` if None.

    Returns:
        The trials, and what there is to say of them.

    Raises:
        LikemindError: The pickle holds anything but builtin types, or a trial is not as it must be; it is named.
    """
    with path.open("rb") as file:
        table = file.read(4) == b"PAR1"
    people = _from_table(path) if table else _from_pickle(path)
    kept, dropped = [], Counter[str]()
    for who, where, trial in _trials(people, path):
        kind = trial.get("exp_trial_type", _KEPT)
        if kind == _KEPT:
            kept.append((who, where, trial))
        else:
            dropped[str(kind)[:50]] += 1
    if not kept:
        kinds = few(list(dropped)) or "none at all"
        raise LikemindError(f"{path} has no trial whose exp_trial_type is {_KEPT!r} (it has {kinds}): check the file")
    found, notes = _triplets(kept, items, path, source)
    told = ", ".join(f"{count} {kind}" for kind, count in sorted(dropped.items()))
    return found, notes + ([f"trials dropped by exp_trial_type: {told}"] if told else [])


def _from_pickle(path: Path) -> dict[Any, Any]:
    people = load_plain(path)
    wrong = "not a dictionary of participant → list of trials: it is not Levels; check the file"
    if not isinstance(people, dict) or not all(isinstance(trials, list) for trials in people.values()):
        raise LikemindError(f"{path} is {wrong}")
    if sum(map(len, people.values())) > path.stat().st_size:  # one list may stand in many places
        raise LikemindError(f"{path} unfolds to more trials than it has bytes: it is not Levels; check the file")
    return people


def _from_table(path: Path) -> dict[Any, Any]:
    table = read_table(path)
    missing = [name for name in ("participant_id", *NEEDED) if name not in table.column_names]
    if missing:
        raise LikemindError(f"{path} has no column {', '.join(missing)}: it is not Levels; check the file")
    people: dict[Any, Any] = {}
    for trial in table.to_pylist():
        people.setdefault(trial["participant_id"], []).append(trial)
    return people


def _trials(people: dict[Any, Any], path: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for number, (who, trials) in enumerate(people.items()):
        if not isinstance(who, (str, int)):
            raise LikemindError(f"{path}: participant {number} (counting from 0) has no name: it is not Levels")
        for row, trial in enumerate(trials):
            where = f"{path}: participant {number}, trial {row} (counting from 0)"
            if not isinstance(trial, dict):
                raise LikemindError(f"{where} is no dictionary; mend it")
            for name in NEEDED:
                if not isinstance(trial.get(name), str) or not trial[name]:
                    raise LikemindError(f"{where} has no {name}; fill or remove it")
            yield str(who), where, trial


def _triplets(
    kept: list[tuple[str, str, dict[str, Any]]], items: ItemNames | None, path: Path, source: str | None
) -> tuple[Triplets, list[str]]:
    names = sorted({trial[name] for _, _, trial in kept for name in IMAGES})
    number = {name: row for row, name in enumerate(names)}
    times, notes = seconds(np.array([_milliseconds(trial.get("rt"), where) for _, where, trial in kept]))
    levels = [trial.get("triplet_type") for _, _, trial in kept]
    known = any(level is not None for level in levels)
    try:
        found = Triplets(
            joined(names, items, path),
            np.array([[number[trial[name]] for name in IMAGES] for _, _, trial in kept]),
            choice=np.array([_odd(trial, where) for _, where, trial in kept], dtype=np.int8),
            response_time=times if np.isfinite(times).any() else None,
            participant=hashed(pa.array([who for who, _, _ in kept])),
            level=np.array([str(level)[:50] for level in levels], dtype=object) if known else None,
            source=source or "human",
        )
    except LikemindError as error:
        text = str(error)
        raise LikemindError(text if text.startswith(str(path)) else f"{path}, without dropped trials: {text}") from None
    return found, notes


def _odd(trial: dict[str, Any], where: str) -> int:
    shown, odd = [trial[name] for name in IMAGES], trial["selected_image"]
    if odd in shown:
        return shown.index(odd)
    keys = [key(name) for name in shown]
    if keys.count(key(odd)) != 1:
        raise LikemindError(f"{where}: selected_image {odd[:100]!r} is none of its images; mend it")
    return keys.index(key(odd))


def _milliseconds(value: Any, where: str) -> float:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise LikemindError(f"{where}: rt is not a number; remove or mend it") from None
