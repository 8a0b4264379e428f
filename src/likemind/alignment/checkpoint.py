"""One file holds all that training needs to go on: weights, Adam's moments, where it stands. It cannot run code."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch

from likemind.artifacts import write_atomic
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

LAST, BEST = "checkpoint.safetensors", "best.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class Standing:
    """Where training stands.

    Attributes:
        step: Steps done.
        best: Highest agreement on validation objects so far; None before the first look.
        best_step: Steps done when it was reached.
        looks: Looks since.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    looks: int = 0


def save_checkpoint(
    path: Path,
    parameters: dict[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    standing: Standing,
    backbone: str,
) -> None:
    """Write the state of training, atomically.

    Args:
        path: ``checkpoint.safetensors`` or ``best.safetensors`` in the run's folder.
        parameters: Those that are trained, by name.
        optimizer: Adam over these parameters.
        standing: Where training stands.
        backbone: Fingerprint of the backbone that training began with.
    """
    from safetensors.torch import save

    tensors = {}
    for name, value in parameters.items():
        tensors[f"weight/{name}"] = value.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[value].get(moment, torch.zeros_like(value))
    plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    about = {"standing": json.dumps(asdict(standing)), "backbone": backbone}
    write_atomic(path, save(plain, metadata=about))


def load_checkpoint(
    path: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer | None, backbone: str
) -> Standing:
    """Put the saved state into parameters and optimiser; a fresh standing where there is no checkpoint.

    Args:
        path: As for ``save_checkpoint``.
        parameters: Those that are trained, by name.
        optimizer: Adam over them; None where the weights alone are wanted.
        backbone: Fingerprint of the backbone that training began with.

    Raises:
        LikemindError: The file is damaged, or of another model.
    """
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return Standing()
    mend = f"remove {path.parent} and run again"
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("backbone") != backbone:
                raise LikemindError(f"{path} is a checkpoint of another backbone than {backbone[:12]}…: {mend}")
            standing = Standing(**json.loads(about["standing"]))
            saved = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, LikemindError):
            raise
        raise LikemindError(f"{path} is damaged ({error}): {mend}") from None
    kinds = ("weight", *_MOMENTS)
    wanted = {f"{kind}/{name}": value.shape for name, value in parameters.items() for kind in kinds}
    if {key: value.shape for key, value in saved.items()} != wanted:
        raise LikemindError(f"{path} is a checkpoint of other weights than those that learn here: {mend}")
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(saved[f"weight/{name}"])
            if optimizer is not None:
                moments = {moment: torch.empty_like(value).copy_(saved[f"{moment}/{name}"]) for moment in _MOMENTS}
                optimizer.state[value] = {"step": torch.tensor(float(standing.step)), **moments}
    return standing
