"""How a student is aligned: one validated object, a few named ones."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from likemind.errors import LikemindError


class Recipe(BaseModel):
    """All that decides an alignment, besides its data and its seed.

    Attributes:
        target: ``mixture`` teaches the backbone itself the mix of its own old similarities and the teacher's; ``paper``
            teaches the teacher's similarities to a triplet head, with gradients into the backbone (Muttenthaler et al.
            2025).
        objective: Between the target's choices p and the student's q: ``jensen_shannon`` (AligNet's released code),
            ``kl``, KL(p‖q) (the paper), or ``hard``, −log q of the target's first choice (gLocal's; the released code
            has it too).
        beta: Share of the teacher in the mixture, 0–1.
        sharpness: κ, the mixture's similarities are κ · cosine.
        row_weight: Weight of the row-wise KL term beside the triplets' divergence; within packed batches.
        batching: ``packed`` draws a group of images and many triplets among them; ``independent`` takes three fresh
            images a triplet, as the paper does: from a file of labels, or labelled on the fly as in packed batches.
        tuning: What learns: ``full``, all weights; ``lora``, a few numbers beside the backbone's linear layers, added
            up before it is saved; ``head``, the ``paper`` target's head alone, for which no image is forwarded. The
            head learns in all three.
        rank: Of LoRA.
        head: The ``paper`` target's triplet head starts from the ``teacher``'s map (same backbone only) or ``random``
            (1,024 wide, variance 1/fan-in as Flax has it). The mixture's is the teacher's map throughout.
        similarity: Of the ``paper`` target's head, ``dot`` or ``cosine``; the mixture's is the cosine.
        temperature: τ of the student's similarities; 100 in the released code, whose head starts at random.
        target_temperature: τ† of the target's similarities; 1 in the released code.
        rounds: Of training: in each after the first the ``mixture``'s head on the last round's student is the teacher,
            and the student starts from its first weights again.
        steps: Optimiser steps a round.
        images: Images a packed batch, or a few more, so that every cluster gives equally many.
        clusters: Clusters that these come from.
        triplets: Triplets a batch.
        learning_rate: Peak, for the backbone. head_learning_rate: Peak, for the head.
        warmup: Share of the steps in which the rate rises; a cosine to zero follows.
        from_zero: The rate of the very first step is zero, as optax's schedule has it, instead of the second's.
        pull: λ of the decoupled pull θ ← θ − η(Adam + λ(θ − θ₀)).
        precision: Of the network's arithmetic; ``auto`` probes which is faster here.
        checkpoint_every: Steps between checkpoints.
        validate_every: Steps between looks at the validation objects, where there are any; 0 for none.
        patience: Looks without a better agreement after which training ends early, and the best weights are taken; 0
            trains to the end, and takes the last.
        alphas: Interpolations θ₀ + α(θ − θ₀) of the weights that retention may ship.
        betas: Shares of the head that retention may mix into the shipped embedding.
        max_loss: Points of few-shot accuracy (mean of 1- and 5-shot) on validation classes that may be lost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    target: Literal["mixture", "paper"] = "mixture"
    objective: Literal["jensen_shannon", "kl", "hard"] = "jensen_shannon"
    beta: float = Field(default=0.8, ge=0, le=1)
    sharpness: float = Field(default=15.0, gt=0)
    row_weight: float = Field(default=1.0, ge=0)
    batching: Literal["packed", "independent"] = "packed"
    tuning: Literal["full", "lora", "head"] = "full"
    rank: int = Field(default=8, ge=1)
    head: Literal["teacher", "random"] = "teacher"
    similarity: Literal["dot", "cosine"] = "dot"
    temperature: float = Field(default=1.0, gt=0)
    target_temperature: float = Field(default=1.0, gt=0)
    rounds: int = Field(default=1, ge=1)
    steps: int = Field(default=400, ge=1)
    images: int = Field(default=96, ge=3)
    clusters: int = Field(default=12, ge=2)
    triplets: int = Field(default=2048, ge=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    head_learning_rate: float = Field(default=2e-5, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    from_zero: bool = False
    pull: float = Field(default=20.0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_every: int = Field(default=20, ge=1)
    validate_every: int = Field(default=100, ge=0)
    patience: int = Field(default=0, ge=0)
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
        from_zero=True,
        pull=1.0,
        checkpoint_every=1000,
        validate_every=5000,
    ),
}
"""``smoke`` ends in seconds, ``small`` suits one machine, ``paper`` is AligNet's released ``configs/siglip.py``.

That file's own default labels are the *untransformed* ones (``transform="untransformed"``): run as it stands it trains
the control, which is ``control=True`` here. AligNet itself is its ``uncertainty_distillation``, our default. What is no
part of a recipe here: labels of ``cluster_border`` sampling over 500 clusters (``label``'s defaults), and pictures as
``preprocessing="alignet"``."""


def rate(step: int, recipe: Recipe) -> float:
    """Return the learning rate's share of its peak: a linear rise, then a cosine to zero."""
    rise = recipe.warmup * recipe.steps
    if step < rise:
        return step / rise if recipe.from_zero else (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, recipe.steps - rise)))


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
