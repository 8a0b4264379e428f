"""Public files by address and checksum: eight at a time, each verified, continued where a run was cut off."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import quote

from likemind.errors import LikemindError, few
from likemind.hashes import content_hashes, digest
from likemind.progress import track

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from requests import RequestException

WORKERS = 8
"""How many files are fetched at once."""

_CHUNK = 1 << 16
_LONGEST_PAUSE = 60.0
_PASSING = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


@dataclass(frozen=True)
class Source:
    """A public file: one row of ``sources.csv``.

    Attributes:
        part: What it belongs to; the column ``set``.
        repository: ``owner/name`` on GitHub.
        commit: The commit that is meant, in full.
        path: The file's path in the repository.
        sha256: Checksum of its bytes, in hex.
        size: How many bytes it has; the column ``bytes``.
    """

    part: str
    repository: str
    commit: str
    path: str
    sha256: str
    size: int

    @property
    def name(self) -> str:
        """Its path below the folder that it is fetched into."""
        return f"{self.repository}/{self.commit}/{self.path}"


@dataclass(frozen=True)
class Archive(Source):
    """A public file on its publishers' own server, where ``path`` is all that its address needs."""

    @property
    def name(self) -> str:
        """Its path below the folder that it is fetched into."""
        return self.path


@dataclass(frozen=True)
class Server:
    """Where files come from, and how patiently they are asked for.

    Attributes:
        base_url: What stands before ``/REPOSITORY/COMMIT/PATH``.
        timeout: Seconds to wait for a connection, and then for each next piece of a file.
        tries: How often a file is asked for before a passing failure counts.
        pause: Seconds before the second try; they double before each further one.
    """

    base_url: str = "https://raw.githubusercontent.com"
    timeout: float = 30.0
    tries: int = 3
    pause: float = 1.0

    def url(self, source: Source) -> str:
        """Return the file's address."""
        return f"{self.base_url}/{quote(source.name)}"


GITHUB = Server()


class _UnreachableError(Exception):
    """The server gives nothing, which is no fault of one file; says how that shows."""


def download(sources: Sequence[Source], folder: Path, *, server: Server = GITHUB) -> None:
    """Fetch the files that are not there yet into ``folder/REPOSITORY/COMMIT/PATH``.

    A file appears under its name only when its bytes are those that are meant. So after an interruption of any kind the
    same call fetches what is still missing, and files that were put there by hand count. Only one process may fetch
    into a folder at a time.

    Args:
        sources: The files.
        folder: Where they go; made if it is not there.
        server: Where they come from.

    Raises:
        LikemindError: There is no connection, the server no longer has a file, or has other bytes under its name.

    Example:
        >>> import tempfile; from pathlib import Path
        >>> download([], Path(tempfile.mkdtemp()))
    """
    missing = missing_of(sources, folder)
    if not missing:
        return
    try:
        _fetch_all(missing, folder, server, there=len(sources) - len(missing))
    except _UnreachableError as error:
        raise _stopped(str(error), sources, folder) from error.__cause__
    except OSError as error:
        raise LikemindError(
            f"{error.filename or folder} cannot be written ({error.strerror}): free some space, or choose another "
            "cache folder with the environment variable LIKEMIND_CACHE"
        ) from error


def missing_of(sources: Sequence[Source], folder: Path) -> list[Source]:
    """Return the files that are not in the folder with the bytes that are meant."""
    there = [source for source in sources if (folder / source.name).is_file()]
    hashes = content_hashes([folder / source.name for source in there])
    whole = {source.name for source, sha256 in zip(there, hashes, strict=True) if sha256 == source.sha256}
    return [source for source in sources if source.name not in whole]


def _stopped(reason: str, sources: Sequence[Source], folder: Path) -> LikemindError:
    missing = missing_of(sources, folder)
    repositories = sorted({source.repository for source in missing})
    again = (
        f"{reason}, and {len(missing)} of {len(sources)} public files are still missing: connect to the internet and "
        "run the same command again, it will continue, or put "
    )
    if all(isinstance(source, Archive) for source in missing):
        return LikemindError(f"{again}{few([source.name for source in missing])} at {folder} by hand")
    return LikemindError(
        f"{again}the files of the GitHub repositories {few(repositories, len(repositories))} at "
        f"{folder}/OWNER/NAME/COMMIT/PATH by hand, or pass --data-dir"
    )


def _fetch_all(sources: list[Source], folder: Path, server: Server, *, there: int) -> None:
    """Fetch the files; the first failure ends it, once the files under way have ended."""
    stop = threading.Event()
    with ThreadPoolExecutor(WORKERS) as pool:
        files = [pool.submit(_fetch, source, folder, server, stop) for source in sources]
        total = there + len(sources)
        try:
            for file in track(as_completed(files), total=total, done=there, what="fetching public files"):
                file.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch(source: Source, folder: Path, server: Server, stop: threading.Event) -> None:
    from requests import RequestException

    path = folder / source.name
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _get(server.url(source), part, server, stop)
        sha256 = digest(part)
        if sha256 != source.sha256:
            raise LikemindError(
                f"{server.url(source)} has other bytes than expected (SHA-256 {sha256[:12]}…, expected "
                f"{source.sha256[:12]}…), nothing of it was kept: run the same command again, put the right file at "
                f"{path} by hand, or pass --data-dir"
            )
        part.replace(path)
    except RequestException as error:
        raise _failure(error, source, path, server) from error
    finally:
        part.unlink(missing_ok=True)


def _get(url: str, path: Path, server: Server, stop: threading.Event) -> None:
    """Write what stands at an address, asking again after a failure that may pass."""
    import pooch
    from requests import RequestException

    get = pooch.HTTPDownloader(timeout=server.timeout, chunk_size=_CHUNK)
    for attempt in range(server.tries):
        try:
            get(url, str(path), None)
        except RequestException as error:
            last = attempt + 1 == server.tries
            if last or not _may_pass(error) or stop.wait(_pause(error, server.pause * 2**attempt)):
                raise
        else:
            return


def _may_pass(error: RequestException) -> bool:
    return error.response is None or error.response.status_code in _PASSING


def _pause(error: RequestException, usual: float) -> float:
    """Return how many seconds to wait: as many as the server asks for, within reason."""
    asked = "" if error.response is None else error.response.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_PAUSE) if asked.isdecimal() else usual


def _failure(error: RequestException, source: Source, path: Path, server: Server) -> Exception:
    if error.response is None:
        return _UnreachableError(f"{server.base_url} does not answer as it should ({type(error).__name__})")
    status = error.response.status_code
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return LikemindError(
            f"{server.url(source)} is not there any more (HTTP {status}): put the file at {path} by hand, or pass "
            "--data-dir"
        )
    return _UnreachableError(f"{server.base_url} refuses {source.path} (HTTP {status})")
