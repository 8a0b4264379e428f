"""How much faster is a training step when freed memory stays in the process?

    python benchmarks/allocator.py [--quick]

Prints one JSON line. The peer is the same step in the same run with glibc's own settings; CPU seconds of one thread.
"""

from __future__ import annotations

from _measure import quick, row

import os
import subprocess
import sys

STEP = """
import resource, sys, timm, torch
torch.set_num_threads(1)
if sys.argv[1] == "keep":
    from likemind.memory import keep_freed_memory
    assert keep_freed_memory(), "glibc did not listen"
module = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(memory_format=torch.channels_last)
pixels = torch.randn(64, 3, 128, 128).contiguous(memory_format=torch.channels_last)
def step(): module(pixels).square().sum().backward()
step()
spent = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
start = spent()
for _ in range(int(sys.argv[2])): step()
print((spent() - start) / int(sys.argv[2]))
"""


def seconds(mode: str, steps: int) -> float:
    """Return the CPU seconds of one step in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-c", STEP, mode, str(steps)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def main() -> None:
    """Time both in turn and print the ratio of the medians."""
    rounds, steps = (1, 3) if quick(__doc__) else (5, 10)
    pairs = [(seconds("keep", steps), seconds("default", steps)) for _ in range(rounds)]
    ours, peer = (sorted(column)[len(column) // 2] for column in zip(*pairs, strict=True))
    unit = "CPU s a step of 64 images at 128 px, EfficientNet-Lite0, float32"
    row("allocator/train_step", ours, unit, peer="the same step with glibc's default settings", ratio=peer / ours)


if __name__ == "__main__":
    main()
