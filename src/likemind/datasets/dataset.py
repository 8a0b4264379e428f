"""What is said of every published data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    from likemind.datasets.download import Archive, Server, Source


class DataSet:
    """A published data set.

    Attributes:
        name: As ``likemind data NAME`` calls it, and its folder below the folder of data sets.
        title: What it is, and the paper.
        licence: As stated where it is published.
        source: Where it is published, or whom to ask.
        version: Which version is meant.
        layout: What its folder holds.
        archive: The file that may be downloaded and unpacked, with its checksum and server; None if there is none.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    licence: ClassVar[str]
    source: ClassVar[str]
    version: ClassVar[str]
    layout: ClassVar[str]
    archive: ClassVar[tuple[Archive, Server] | None] = None

    @property
    def sources(self) -> list[Source]:
        """Files on GitHub that may be downloaded, with their checksums."""
        return []

    @property
    def may_be_downloaded(self) -> bool:
        """Whether ``likemind data`` fetches it."""
        return self.archive is not None or bool(self.sources)

    @property
    def checksum(self) -> str:
        """SHA-256 of what is downloaded, or an empty text where nothing is."""
        return "" if self.archive is None else self.archive[0].sha256

    def check(self, folder: Path) -> dict[str, int]:
        """Return what its folder holds, counted.

        Raises:
            LikemindError: It is not as published; what is missing is counted and named.
        """
        raise NotImplementedError
