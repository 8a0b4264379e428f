"""A server of made-up public files."""

from __future__ import annotations

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
