"""How a student is aligned: one validated object, a few named ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likemind.errors import LikemindError


class Recipe(BaseModel):
    """All that decides an alignment, besides its data and its seed.

    Attributes:
        target: ``mixture`` teaches the backbone itself the mix of its own old similarities and the teacher's; ``paper``
            teaches the teacher's similarities to a triplet head, with gradients into the backbone (Muttenthaler et al.
            2025).
        beta: Share of the teacher in the mixture, 0–1.
        sharpness: κ, the mixture's similarities are κ · cosine.
        row_weight: Weight of the row-wise KL term beside the triplets' Jensen–Shannon divergence.
        batching: ``packed`` draws a group of images and many triplets among them, labelled on the fly; ``independent``
            takes fresh triplets from a file of labels.
        head: The ``paper`` target's triplet head starts from the ``teacher``'s map (same backbone only) or ``random``
            (1,024 wide, variance 1/fan-in as Flax has it). The mixture's is the teacher's map throughout.
        temperature: τ of the head's dot products; 100 in the released code, which starts at random.
        steps: Optimiser steps.
        images: Images a packed batch, or a few more, so that every cluster gives equally many.
        clusters: Clusters that these come from.
        triplets: Triplets a batch.
        learning_rate: Peak, for the backbone. head_learning_rate: Peak, for the head.
        warmup: Share of the steps in which the rate rises; a cosine to zero follows.
        pull: λ of the decoupled pull θ ← θ − η(Adam + λ(θ − θ₀)).
        precision: Of the network's arithmetic; ``auto`` probes which is faster here.
        checkpoint_every: Steps between checkpoints.
        alphas: Interpolations θ₀ + α(θ − θ₀) of the weights that retention may ship.
        betas: Shares of the head that retention may mix into the shipped embedding.
        max_loss: Points of few-shot accuracy (mean of 1- and 5-shot) on validation classes that may be lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: Literal["mixture", "paper"] = "mixture"
    beta: float = Field(default=0.6, ge=0, le=1)
    sharpness: float = Field(default=15.0, gt=0)
    row_weight: float = Field(default=0.3, ge=0)
    batching: Literal["packed", "independent"] = "packed"
    head: Literal["teacher", "random"] = "teacher"
    temperature: float = Field(default=1.0, gt=0)
    steps: int = Field(default=400, ge=1)
    images: int = Field(default=96, ge=3)
    clusters: int = Field(default=12, ge=2)
    triplets: int = Field(default=2048, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    head_learning_rate: float = Field(default=2e-5, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    pull: float = Field(default=5.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: int = Field(default=20, ge=1)
    alphas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = Field(default=(1.0, 0.75, 0.5), min_length=1)
    betas: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = (0.25, 0.5, 0.75)
    max_loss: float = Field(default=0.5, ge=0)


RECIPES: dict[str, Recipe] = {
    "smoke": Recipe(steps=6, images=24, clusters=4, triplets=256, checkpoint_every=2, alphas=(1.0,), betas=(0.5,)),
    "small": Recipe(),
    "paper": Recipe(
        target="paper",
        batching="independent",
        head="random",
        temperature=100.0,
        steps=100_000,
        triplets=512,
        learning_rate=3e-5,
        head_learning_rate=3e-5,
        warmup=0.05,
        pull=1.0,
        checkpoint_every=1000,
    ),
}
"""``smoke`` ends in seconds, ``small`` suits one machine, ``paper`` is the released one, its labels from a file."""


def resolve_recipe(recipe: str | Recipe, changes: dict[str, object] | None = None) -> Recipe:
    """Return a recipe by name, with some fields changed.

    Raises:
        LikemindError: No such recipe or field, or a value out of range.

    Example:
        >>> resolve_recipe("small", {"steps": 10}).steps
        10
    """
    if isinstance(recipe, str) and recipe not in RECIPES:
        raise LikemindError(f"there is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    start = RECIPES[recipe] if isinstance(recipe, str) else recipe
    try:
        return Recipe.model_validate({**start.model_dump(), **(changes or {})})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        known = f" (fields: {', '.join(Recipe.model_fields)})" if first["type"] == "extra_forbidden" else ""
        raise LikemindError(f"recipe field {name!r}: {first['msg'].lower()}{known}; mend it") from None
