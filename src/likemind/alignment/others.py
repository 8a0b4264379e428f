"""Several processes, started by ``torchrun`` or ``accelerate launch``: the first writes, the others help it train."""

from __future__ import annotations

import os
from datetime import timedelta

_PATIENCE = timedelta(days=7)
"""For the others, while the first embeds the images; a process that ends ends them all."""


class Others:
    """The other processes of this run; none, in one that nobody launched as several.

    Attributes:
        first: Whether this is the first process.
    """

    def __init__(self) -> None:
        self._several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        self.first = True
        if self._several:
            import torch
            from accelerate import PartialState
            from accelerate.utils import parse_flag_from_env

            cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
            self.first = PartialState(cpu=cpu, timeout=_PATIENCE).is_main_process

    def tell(self, what: str | None) -> None:
        """Say something to the others."""
        if self._several:
            self._pass(what)

    def hear(self) -> str | None:
        """Wait for what the first process says."""
        return self._pass(None)

    def _pass(self, what: str | None) -> str | None:
        from accelerate.utils import broadcast_object_list

        heard: list[str | None] = broadcast_object_list([what])
        return heard[0]
