"""Places that are fsspec URLs: told from paths, and opened. Credentials come from the environment alone."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from likemind.errors import LikemindError, first_line
from likemind.hashes import cache_folder, key_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from likemind.artifacts import PathLike

_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+(.*)", re.IGNORECASE | re.DOTALL)
_PASSWORD = re.compile(r"[^/]*:[^/]*@")


def url_of(place: PathLike) -> str | None:
    """Return a place as a URL; None for a path, and for ``file:``, which is one.

    A ``Path`` that was made of a URL has lost a slash; it is understood.

    Example:
        >>> url_of(Path("s3://bucket/photos")), url_of("photos"), url_of("file:///photos")
        ('s3://bucket/photos', None, None)
    """
    found = _URL.fullmatch(os.fspath(place))
    if found is None or found[1].lower() in ("file", "local"):
        return None
    return f"{found[1].lower()}://{found[2].rstrip('/')}"


def path_of(place: PathLike) -> Path:
    """Return a place that is no URL as a path.

    Example:
        >>> path_of("file:///photos").as_posix(), path_of("photos").as_posix()
        ('/photos', 'photos')
    """
    found = _URL.fullmatch(os.fspath(place))
    return Path("/" + found[2]) if found else Path(place)


def below(place: PathLike, name: str) -> PathLike:
    """Return what is called ``name`` in the folder at a path or URL."""
    url = url_of(place)
    return path_of(place) / name if url is None else f"{url}/{name}"


def mirror_of(url: str) -> Path:
    """Return where this machine keeps what lies at a URL."""
    name = PurePosixPath(url.partition("://")[2]).name
    return cache_folder() / "objects" / key_of(url=url)[:16] / (name or "all")


@contextlib.contextmanager
def locked(mirror: Path) -> Iterator[None]:
    """Wait until no other process brings files to a mirror."""
    mirror.parent.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    with mirror.parent.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Store:
    """The object store that a URL names, from the URL's place downwards.

    Raises:
        LikemindError: The package for such a store is not installed, there is none of the name, or the URL holds a
            password.
    """

    def __init__(self, url: str) -> None:
        import fsspec
        from fsspec.registry import known_implementations

        scheme, _, rest = url.partition("://")
        if _PASSWORD.match(rest):
            raise LikemindError(f"a {scheme} address holds a password: take it out, and put it in the environment")
        if scheme not in {*known_implementations, *fsspec.available_protocols()}:
            raise LikemindError(f"{url} is at no kind of store that is known ({scheme}): check the address")
        try:
            self.fs, root = fsspec.url_to_fs(url)
        except ImportError:
            package = known_implementations[scheme]["class"].partition(".")[0]
            needed = "'likemind[s3]'" if package == "s3fs" else package
            raise LikemindError(f"{url} needs the package {package}: pip install {needed}") from None
        except Exception as error:  # each store's library raises errors of its own
            raise LikemindError(f"{url} cannot be opened ({first_line(error)}): check the address") from error
        self.url, self.root = url, root.rstrip("/")
        self.fs.invalidate_cache()

    def place(self, name: str) -> str:
        """Return what the store calls an object below the URL; with "" the URL's own place."""
        return f"{self.root}/{name}" if name else self.root

    def read(self, name: str) -> bytes | None:
        """Return an object's bytes; None if there is none."""
        try:
            data: bytes = self.fs.cat_file(self.place(name))
        except (FileNotFoundError, IsADirectoryError):
            return None
        return data

    def listed(self) -> dict[str, dict[str, Any]]:
        """Return what is known of each object below the URL; of one that is itself an object, under the name ""."""
        found = self.fs.find(self.root, detail=True)
        inside = f"{self.root}/"
        return {
            str(place).removeprefix(self.root).removeprefix("/"): info
            for place, info in found.items()
            if place == self.root or (place.startswith(inside) and not place.endswith("/"))
        }

    @contextlib.contextmanager
    def reached(self, what: str) -> Iterator[None]:
        """Say of errors inside that this URL cannot be ``what``: read, or written."""
        try:
            yield
        except LikemindError:
            raise
        except FileNotFoundError as error:
            raise LikemindError(f"{self.url} cannot be {what} ({first_line(error)}): check the address") from error
        except Exception as error:  # each store's library raises errors of its own
            raise LikemindError(
                f"{self.url} cannot be {what} ({first_line(error)}): check the address, the network and the "
                "credentials in the environment, and run the same command again; it will continue"
            ) from error
