"""A server of made-up public files, and the real pack where it is at hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from public_files import PublicServer

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = PublicServer()
    yield running
    running.close()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public photographs and human data: ``$LIKEMIND_SHARED_DATA``, or a ``shared/data`` further up."""
    given = os.environ.get("LIKEMIND_SHARED_DATA")
    above = [folder / "shared" / "data" for folder in Path(__file__).resolve().parents]
    for folder in [Path(given)] if given else above:
        if (folder / "things" / "concepts.tsv").is_file():
            return folder
    pytest.skip("the public photographs are not at hand: set LIKEMIND_SHARED_DATA to their folder")
