"""A step: forward and backward over a batch, on one process or several, as many images at once as fit."""

from __future__ import annotations

import contextlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from likemind.alignment.precision import faster_precision
from likemind.alignment.trainee import student_loss
from likemind.errors import LikemindError, few, first_line
from likemind.features.ahead import default_workers
from likemind.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from likemind.alignment.batches import Batch
    from likemind.alignment.known import Known
    from likemind.alignment.recipe import Recipe
    from likemind.alignment.trainee import Student


_FORWARDED = 128
"""Images forwarded at once where nothing is learned."""


@dataclass(frozen=True)
class Running:
    """How a run is carried out; none of it changes what is learned, but for rounding.

    Attributes:
        workers: Threads that decode; one less than there are processors if None.
        images_at_once: Images forwarded at once by a process; all of its share of a batch if None. With fewer, each
            image goes forward twice.
        compiled: Compile the network with ``torch.compile``.
        tracker: Of Accelerate's, such as ``tensorboard`` or ``wandb``, or a ``GeneralTracker``.
    """

    workers: int | None = None
    images_at_once: int | None = None
    compiled: bool = False
    tracker: Any = None


class Trainer:
    """One student, its optimiser, and the steps that it takes.

    The loss is that of the whole batch, whatever the number of processes and of images at once: every process forwards
    its share of the images, the outputs are gathered, the loss is taken of them all, and its gradient at the outputs
    goes back through each process's own images (Gao et al. 2021, https://arxiv.org/abs/2101.06983).

    Args:
        student: To be trained, in place.
        known: The images, and what is known of them.
        recipe: Says how.
        running: How it is carried out.
        accelerator: Of all processes; None for this one alone, on the same device.
    """

    def __init__(
        self, student: Student, known: Known, recipe: Recipe, running: Running, accelerator: Any = None
    ) -> None:
        keep_freed_memory()
        self.student, self.known, self.recipe, self.running = student, known, recipe, running
        self.forwards = recipe.tuning != "head"
        half = recipe.precision if recipe.precision != "auto" or not self.forwards else faster_precision(student.about)
        self.bfloat16 = half == "bfloat16"
        self.accelerator = accelerator
        self.processes = accelerator.num_processes if accelerator else 1
        self.first = accelerator is None or accelerator.is_main_process
        self.device = accelerator.device if accelerator else _device()
        student.to(self.device).to(memory_format=torch.channels_last)
        self.network: Any = student.backbone
        if self.forwards:
            self._freeze_unused()
        if self.processes > 1 and self.forwards:
            self.network = accelerator.prepare_model(student.backbone)
        if running.compiled:
            self.network.compile()
        peaks = {"backbone": recipe.learning_rate, "head": recipe.head_learning_rate}
        groups = [{"params": [value], "peak": peaks[name.split(".")[0]]} for name, value in student.learning.items()]
        self.optimizer = torch.optim.Adam(groups, lr=0.0)

    def step(self, batch: Batch, pixels: Tensor | None, share: float, *, what: str) -> dict[str, float]:
        """Take a step at this share of the peak rates; return the loss and its parts.

        Raises:
            LikemindError: The loss is not finite, or memory runs out; ``what`` says when.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * share
        self.optimizer.zero_grad()
        parts = self.gradients(batch, pixels, what=what)
        self._pull()
        self.optimizer.step()
        return {name: value.item() for name, value in parts.items()}

    def gradients(self, batch: Batch, pixels: Tensor | None, *, what: str) -> dict[str, Tensor]:
        """Leave the gradients of a batch's loss in the student's weights; return the loss and its parts.

        Shapes:
            pixels: (share, 3, size, size), the images of ``own``; None where the backbone does not learn.
        """
        if pixels is None:
            leaf = torch.from_numpy(self.known.base_rows[batch.images]).to(self.device)
            return self._loss(leaf, batch, what)
        pieces = torch.split(pixels, self.running.images_at_once or len(pixels))
        with _memory(max(len(piece) for piece in pieces)):
            with contextlib.nullcontext() if len(pieces) == 1 else torch.no_grad():
                outputs = [self._forward(piece) for piece in pieces]
            own = torch.cat([output.detach() for output in outputs])
            leaf = (self.accelerator.gather(own) if self.processes > 1 else own)[: len(batch.images)]
            parts = self._loss(leaf.requires_grad_(), batch, what)
            assert leaf.grad is not None
            back = torch.split(self._own_gradient(leaf.grad, len(own)), len(pieces[0]))
            if len(pieces) == 1:
                outputs[0].backward(back[0])  # type: ignore[no-untyped-call]
                return parts
            for number, (piece, gradient) in enumerate(zip(pieces, back, strict=True)):
                with self._in_step(last=number + 1 == len(pieces)):
                    self._forward(piece).backward(gradient)  # type: ignore[no-untyped-call]
        return parts

    @torch.no_grad()
    def outputs(self, pixels: Tensor) -> Tensor:
        """Return the backbone's output for prepared pixels, on this process alone, (n, d)."""
        pieces = torch.split(pixels, self.running.images_at_once or _FORWARDED)
        return torch.cat([self._forward(piece) for piece in pieces])

    def from_first(self, what: Any) -> Any:
        """Return on every process what the first has."""
        if self.processes == 1:
            return what
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([what])[0]

    def own(self, images: int) -> np.ndarray:
        """Return which images of a batch this process forwards; the last may come again, to make shares equal."""
        if not self.forwards:
            return np.arange(0)
        share = -(-images // self.processes)
        start = share * (self.accelerator.process_index if self.accelerator else 0)
        return np.arange(start, start + share).clip(max=images - 1)

    def _forward(self, pixels: Tensor) -> Tensor:
        moved = pixels.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            output: Tensor = self.network(moved)
        return output if output.dtype == torch.float64 else output.float()

    def _loss(self, pooled: Tensor, batch: Batch, what: str) -> dict[str, Tensor]:
        parts = student_loss(self.student, pooled, batch, self.known, self.recipe)
        if not math.isfinite(parts["loss"].item()):
            bad = np.flatnonzero(~pooled.detach().isfinite().all(dim=1).cpu().numpy())
            names = few(
                [self.known.images.ids[position] for position in batch.images[bad if len(bad) else slice(None)]]
            )
            where = f"; the network's output is not finite for {names}" if len(bad) else f"; its images are {names}"
            raise not_finite("the loss", what, where)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        if self.processes > 1 and self.student.head is not None:
            for value in self.student.head.parameters():
                if value.grad is not None:  # all processes took the same loss
                    value.grad = self.accelerator.reduce(value.grad, reduction="mean")
        return {name: value.detach() for name, value in parts.items()}

    def _own_gradient(self, gradient: Tensor, share: int) -> Tensor:
        """Return the rows of this process, times the processes, over which DDP takes the mean; none twice."""
        if self.processes == 1:
            return gradient
        whole = gradient.new_zeros(share * self.processes, gradient.shape[1])
        whole[: len(gradient)] = gradient * self.processes
        start = share * self.accelerator.process_index
        return whole[start : start + share]

    def _in_step(self, *, last: bool) -> Any:
        """Let processes exchange gradients once a step."""
        together = self.processes == 1 or last
        return contextlib.nullcontext() if together else self.accelerator.no_sync(self.network)

    @torch.no_grad()
    def _pull(self) -> None:
        """Pull every weight towards where it started, decoupled from Adam: θ ← θ − η λ (θ − θ₀).

        Done before Adam's step, whose moments do not look at θ: the two make θ ← θ − η (Adam + λ (θ − θ₀)) at the old
        θ, as in the published chain (``scale_by_adam``, ``decay_to_init``, rate).
        """
        rates = {id(value): group["lr"] for group in self.optimizer.param_groups for value in group["params"]}
        for name, value in self.student.learning.items():
            first = self.student.start_weights[name].to(value.device)
            value.sub_(rates[id(value)] * self.recipe.pull * (value - first))

    def _freeze_unused(self) -> None:
        """Freeze what the output does not depend on: it has no gradient, and several processes would wait for it."""
        size = self.student.about.preprocessing.size
        learning = {name: value for name, value in self.student.backbone.named_parameters() if value.requires_grad}
        output = self.student(torch.rand(1, 3, size, size, device=self.device))
        found: tuple[Tensor | None, ...] = torch.autograd.grad(output.sum(), list(learning.values()), allow_unused=True)
        for (name, value), gradient in zip(learning.items(), found, strict=True):
            if gradient is None:
                value.requires_grad_(False)
                del self.student.start_weights[f"backbone.{name}"]


def batches_ahead(
    known: Known, batches: Iterable[tuple[int, Batch]], trainer: Trainer
) -> Iterator[tuple[int, Batch, Tensor | None]]:
    """Yield each step's batch and the pixels of this process's images, decoding the next ones meanwhile."""
    if not trainer.forwards:
        yield from ((step, batch, None) for step, batch in batches)
        return
    prepare, size = known.backbone.preprocessing, known.backbone.preprocessing.size

    def fill(place: np.ndarray, position: int) -> None:
        place[:] = prepare(known.images.read(position)).permute(1, 2, 0).numpy()

    pool = ThreadPoolExecutor(max_workers=trainer.running.workers or default_workers())

    def begin(batch: Batch) -> tuple[Batch, np.ndarray, list[Any]]:
        mine = batch.images[trainer.own(len(batch.images))]
        pixels = np.empty((len(mine), size, size, 3), dtype=np.float32)
        return batch, pixels, [pool.submit(fill, pixels[k], int(position)) for k, position in enumerate(mine)]

    try:
        waiting: list[tuple[int, tuple[Batch, np.ndarray, list[Any]]]] = []
        for step, batch in batches:
            waiting.append((step, begin(batch)))
            if len(waiting) > 1:
                yield _ready(*waiting.pop(0))
        for last in waiting:
            yield _ready(*last)
    finally:
        pool.shutdown(cancel_futures=True)


def _ready(step: int, work: tuple[Batch, np.ndarray, list[Any]]) -> tuple[int, Batch, Tensor]:
    batch, pixels, futures = work
    for future in futures:
        future.result()
    return step, batch, torch.from_numpy(pixels).permute(0, 3, 1, 2)


def _device() -> torch.device:
    from accelerate import PartialState

    device: torch.device = PartialState().device
    return device


def not_finite(what: str, when: str, where: str = "") -> LikemindError:
    """Return what to say where numbers are not finite."""
    return LikemindError(
        f"{what} is not finite {when}{where}: lower --set learning_rate, or pass --set precision=float32 (the last "
        "good checkpoint is kept)"
    )


@contextlib.contextmanager
def _memory(images: int) -> Iterator[None]:
    """Say what to try where memory runs out."""
    try:
        yield
    except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
        short = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)
        if not short:
            raise
        if images == 1:
            told = "even one image does not fit: choose a smaller backbone or picture"
        else:
            told = f"try --images-at-once {max(1, images // 2)}, which learns the same"
        raise LikemindError(
            f"memory ran out with {images} images at once ({first_line(error)[:120]}): {told}"
        ) from None
