"""One file holds all that training needs to go on: weights, Adam's moments, the step. It cannot run code."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from likemind.artifacts import write_atomic
from likemind.errors import LikemindError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(
    folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, step: int
) -> None:
    """Write the state after ``step`` steps, atomically.

    Args:
        folder: Where ``checkpoint.safetensors`` goes.
        parameters: Those that are trained, by name.
        optimizer: Adam over these parameters.
        step: Steps done.
    """
    from safetensors.torch import save

    tensors = {}
    for name, value in parameters.items():
        tensors[f"weight/{name}"] = value.detach()
        for moment in _MOMENTS:
            tensors[f"{moment}/{name}"] = optimizer.state[value].get(moment, torch.zeros_like(value))
    plain = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write_atomic(folder / "checkpoint.safetensors", save(plain, metadata={"step": str(step)}))


def load_checkpoint(folder: Path, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> int:
    """Put the saved state into parameters and optimiser; returns the steps done, 0 where there is no checkpoint.

    Raises:
        LikemindError: The file is damaged, or of another model.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file, torch.no_grad():
            step = int(file.metadata()["step"])
            for name, value in parameters.items():
                value.copy_(file.get_tensor(f"weight/{name}"))
                moments = {moment: file.get_tensor(f"{moment}/{name}").to(value.device) for moment in _MOMENTS}
                layout = {moment: torch.empty_like(value).copy_(tensor) for moment, tensor in moments.items()}
                optimizer.state[value] = {"step": torch.tensor(float(step)), **layout}
    except (SafetensorError, KeyError, RuntimeError, OSError) as error:
        raise LikemindError(f"{path} is damaged or of another model ({error}): remove {folder} and run again") from None
    return step
