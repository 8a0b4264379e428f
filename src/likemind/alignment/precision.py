"""Is bfloat16 faster here? Two steps of each tell, and the answer is remembered for this machine."""

from __future__ import annotations

import json
import platform
import time
from typing import TYPE_CHECKING, Literal

import torch

from likemind.artifacts import write_json
from likemind.hashes import cache_folder, key_of
from likemind.progress import log

if TYPE_CHECKING:
    from likemind.backbones.base import Backbone

_IMAGES = 16
_WORTH = 1.15


def faster_precision(backbone: Backbone) -> Literal["float32", "bfloat16"]:
    """Return the faster precision for forward and backward; float32 unless bfloat16 is at least 15 % faster.

    A GPU takes bfloat16 where it supports it. The answer is kept in the cache folder, so that a run that is repeated or
    continued on the same machine takes the same.
    """
    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    about = [
        backbone.config["architecture"],
        backbone.preprocessing.size,
        torch.__version__,
        torch.get_num_threads(),
        platform.node(),
    ]
    path = cache_folder() / f"precision-{key_of(about=about)[:16]}.json"
    if path.exists():
        remembered: Literal["float32", "bfloat16"] = json.loads(path.read_text())["precision"]
        return remembered
    seconds = {name: _seconds(backbone, bfloat16=name == "bfloat16") for name in ("float32", "bfloat16")}
    chosen: Literal["float32", "bfloat16"] = (
        "bfloat16" if seconds["float32"] > _WORTH * seconds["bfloat16"] else "float32"
    )
    log.info("precision: %s (a step of %d images: float32 %.2f s, bfloat16 %.2f s)", chosen, _IMAGES, *seconds.values())
    write_json(path, {"precision": chosen, "seconds": seconds})
    return chosen


def _seconds(backbone: Backbone, *, bfloat16: bool) -> float:
    size = backbone.preprocessing.size
    pixels = torch.zeros(_IMAGES, 3, size, size).contiguous(memory_format=torch.channels_last)
    module = backbone.module.to(memory_format=torch.channels_last)
    taken = []
    for _ in range(3):
        started = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            output = module(pixels)
        torch.autograd.grad(
            output.float().square().sum(), [p for p in module.parameters() if p.requires_grad], allow_unused=True
        )
        taken.append(time.process_time() - started)
    return min(taken[1:])
