"""What this run was: enough to tell it from another, and to do it again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from likemind.alignment.recipe import Recipe
from likemind.reporting import words

if TYPE_CHECKING:
    from likemind.reporting.evidence import Evidence

_KEY, _HASH = 12, 64
_TOLD = {"dataset", "data", "models", "seed", "versions"}


@dataclass(frozen=True)
class Made:
    """A model, and how it came to be.

    Attributes:
        name: Its name.
        facts: What there is to say, each a name and a text.
    """

    name: str
    facts: list[tuple[str, str]]


def made(evidence: Evidence) -> list[Made]:
    """Return every model that was scored, with what its makers told."""
    return [Made(model, _facts(evidence.run.get("models", {}).get(model, {}))) for model in evidence.models]


def settings(evidence: Evidence) -> str:
    """Return what else the run told of itself, as JSON; "" where there is nothing else."""
    rest = {name: value for name, value in sorted(evidence.run.items()) if name not in _TOLD}
    return json.dumps(rest, indent=2, sort_keys=True, ensure_ascii=False) if rest else ""


def sources(evidence: Evidence) -> str:
    """Return the sources of all numbers in words."""
    return "; ".join(dict.fromkeys(words.source_name(source) for source in evidence.sources))


def _facts(about: dict[str, Any]) -> list[tuple[str, str]]:
    run = about.get("made") or {}
    config = run.get("config") or {}
    recipe = config.get("recipe") or {}
    shipped = (about.get("retention") or {}).get("shipped") or {}
    layers = ", ".join(about.get("layers", []))
    facts = [
        ("made by", f"likemind {run['verb']}, key {str(run.get('key'))[:_KEY]}…" if run.get("verb") else ""),
        ("folder", str(about.get("path") or "")),
        ("layers", layers),
        ("backbone", str(about.get("backbone") or "not told")),
        ("preprocessing", _preprocessing(about.get("preprocessing") or {})),
        ("recipe", _recipe(recipe)),
        ("settings", ", ".join(f"{name} {_text(value)}" for name, value in config.items() if name != "recipe")),
        ("shipped", f"{shipped['shipped']}, α {shipped['alpha']:g}, β {shipped['beta']:g}" if shipped else ""),
    ]
    return [(name, text) for name, text in facts if text]


def _preprocessing(recipe: dict[str, Any]) -> str:
    size = recipe.get("size")
    said = [f"{size}×{size} pixels"] if size else []
    said += [_text(recipe[name]) for name in ("resize", "interpolation") if name in recipe]
    said += [f"{name} {_text(recipe[name])}" for name in ("mean", "std") if name in recipe]
    return ", ".join(said)


def _recipe(recipe: dict[str, Any]) -> str:
    """Say what differs from the recipe ``small``."""
    usual = Recipe().model_dump(mode="json")
    changed = [f"{name} {_text(value)}" for name, value in recipe.items() if usual.get(name) != value]
    if not recipe:
        return ""
    return f"small, but {', '.join(changed)}" if changed else "small"


def _text(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(_text(one) for one in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return f"{text[:_KEY]}…" if len(text) == _HASH else text
