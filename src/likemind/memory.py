"""Keep freed memory in the process, so that every step does not ask the kernel for the same pages again.

By default glibc hands large blocks back at once, and a training step of an EfficientNet at 128 px spends a third of its
time in page faults. With these settings the same step is 1.7 times as fast (``benchmarks/allocator.py``).
"""

from __future__ import annotations

import ctypes
import functools
import platform

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGE = 1 << 30


@functools.cache
def keep_freed_memory() -> bool:
    """Tell glibc to keep large freed blocks; returns whether it listened. Other systems' allocators are left alone."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_THRESHOLD, _LARGE), (_M_TRIM_THRESHOLD, 2 * _LARGE - 1), (_M_TOP_PAD, _LARGE // 4))
    return all(mallopt(name, value) == 1 for name, value in settings)
