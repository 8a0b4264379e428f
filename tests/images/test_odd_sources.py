"""Folders, tars and Parquet files as strangers make them."""

from __future__ import annotations

import io
import os
import socket
import sys
import tarfile
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from likemind.errors import LikemindError, shown
from likemind.hashes import content_hashes
from likemind.images import sources
from likemind.images.collection import open_images

if TYPE_CHECKING:
    from pathlib import Path

linux = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes, and pipes are files, on Linux")


def png(shade: int = 1) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def shades(path: Path) -> dict[str, int]:
    images = open_images(path)
    return {name: images.read(position).getpixel((0, 0))[0] for position, name in enumerate(images.ids)}  # type: ignore[index]


def complaint(path: Path, position: int = 0) -> str:
    with pytest.raises(LikemindError) as caught:
        open_images(path).read(position)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# --- folders

NAMES = [
    "<script>alert(1)</script>.png".replace("/", "∕"),
    "\"quotes\" and 'quotes' and `these`.png",
    "line\nbreak.png",
    "tab\tand\x1b[31mred\x07.png",
    "-rf.png",
    "--out=x.png",
    " spaces .png",
    "caf\u00e9.png",  # one letter and its accent together, and apart
    "cafe\u0301.png",
    "👩‍🚀.png",
    "\u202egnp.exe.png",
    "back\\slash.png",
    "%00%2e%2e%2f{{7*7}}$(id).png",
    "n" * 251 + ".png",
    "a" + ".x" * 100 + ".png",
]


@linux
def test_any_name_is_only_a_name(tmp_path: Path) -> None:
    for shade, name in enumerate(NAMES):
        (tmp_path / name).write_bytes(png(shade))
    assert shades(tmp_path) == {name: shade for shade, name in enumerate(NAMES)}
    assert open_images(tmp_path).select(NAMES).ids == NAMES


@linux
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_file_of_any_name_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no image")
    said = complaint(tmp_path)
    assert said.isprintable()
    assert f": {shown(name)} is not an image of a known kind" in said


@linux
def test_what_is_no_file_is_passed_over_and_does_not_block(tmp_path: Path) -> None:
    inside = tmp_path / "in"
    (inside / "folder.jpg").mkdir(parents=True)
    (inside / "folder.jpg/kept.png").write_bytes(png(7))
    (inside / ".hidden.png").write_bytes(png())
    (inside / "._fork.jpg").write_bytes(b"\0\5\x16\7")
    (inside / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (inside / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0")
    os.mkfifo(inside / "pipe.jpg")
    (inside / "pipe-link.jpg").symlink_to(inside / "pipe.jpg")
    (inside / "device.jpg").symlink_to("/dev/zero")
    (inside / "round.jpg").mkdir()
    (inside / "round.jpg/up").symlink_to(inside, target_is_directory=True)
    (inside / "linked").symlink_to(tmp_path, target_is_directory=True)
    with socket.socket(socket.AF_UNIX) as opened:
        here = os.getcwd()  # noqa: PTH109 - a socket's path must be short
        os.chdir(inside)
        try:
            opened.bind("socket.jpg")
        finally:
            os.chdir(here)
        assert shades(inside) == {"folder.jpg/kept.png": 7}
        open_images(inside).key()
    for kind in (".tar", ".parquet"):
        os.mkfifo(tmp_path / f"pipe{kind}")
        assert "neither a folder nor" in complaint(tmp_path / f"pipe{kind}")


@linux
def test_links_to_files_are_followed_and_lost_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.bin").write_bytes(png(5))
    inside = tmp_path / "in"
    inside.mkdir()
    (inside / "a.png").symlink_to(tmp_path / "elsewhere.bin")
    (inside / "b.png").symlink_to("nowhere.png")
    (inside / "c.png").symlink_to("d.png")
    (inside / "d.png").symlink_to("c.png")
    images = open_images(inside)
    assert images.ids == ["a.png", "b.png", "c.png", "d.png"]
    assert images.read(0).getpixel((0, 0)) == (5, 0, 0)
    assert "b.png cannot be read (No such file or directory): replace it, or pass --skip-bad" in complaint(inside, 1)
    assert "c.png cannot be read (Too many levels of symbolic links)" in complaint(inside, 2)
    before = images.key()
    (inside / "b.png").unlink()
    (inside / "b.png").write_bytes(png(6))
    assert open_images(inside).key() != before


@linux
def test_files_that_cannot_be_read_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").symlink_to("/proc/self/mem")  # stands for a broken disk
    (tmp_path / "b.png").write_bytes(png(2))
    images = open_images(tmp_path)
    assert images.key() == images.key(verify=True)
    assert "a.png cannot be read (Input/output error): replace it, or pass --skip-bad" in complaint(tmp_path)
    with pytest.raises(LikemindError, match=r"a\.png cannot be read \(Input/output error\): check the path"):
        content_hashes([tmp_path / "b.png", tmp_path / "a.png"])
    (tmp_path / "b.png").unlink()
    (tmp_path / "b.png").mkdir()
    with pytest.raises(LikemindError, match=r"b\.png cannot be read \(Is a directory\)"):
        images.read(1)
    images.key(verify=True)
    (tmp_path / "huge.png").write_bytes(b"")
    os.truncate(tmp_path / "huge.png", sources.MAX_BYTES + 1)
    assert "huge.png cannot be read (1,073,741,825 bytes, more than" in complaint(tmp_path, 1)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_what_is_forbidden_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "a.png").chmod(0)
    assert "a.png cannot be read (Permission denied)" in complaint(tmp_path)
    open_images(tmp_path).key()
    (tmp_path / "shut").mkdir(mode=0)
    assert "shut cannot be listed (Permission denied)" in complaint(tmp_path)


@linux
def test_paths_of_any_length(tmp_path: Path) -> None:
    here = os.getcwd()  # noqa: PTH109
    os.chdir(tmp_path)
    try:
        for _ in range(280):
            os.mkdir("d" * 12)  # noqa: PTH102
            os.chdir("d" * 12)
        (png_file := open("x.png", "wb")).write(png(4))  # noqa: PTH123, SIM115
        png_file.close()
    finally:
        os.chdir(here)
    assert shades(tmp_path) == {("d" * 12 + "/") * 280 + "x.png": 4}
    assert "does not exist" in complaint(tmp_path / ("n" * 300))
    assert "does not exist" in complaint(tmp_path / "n\0n")


# --- tars


def member(name: str, data: bytes = b"", **more: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for info, data in members:
            file.addfile(info, io.BytesIO(data))
    return path


def test_member_names_are_only_names(tmp_path: Path) -> None:
    names = ["../../up.png", "/etc/passwd.png", "a/../b.png", "x" * 300 + ".png", "line\nbreak.png", "<script>.png"]
    (tmp_path / "in").mkdir()
    path = tar(tmp_path / "in/x.tar", *(member(name, png(shade)) for shade, name in enumerate(names)))
    assert shades(path) == {name: shade for shade, name in enumerate(names)}
    assert [file.name for file in tmp_path.rglob("*")] == ["in", "x.tar"]


def test_links_in_a_tar_lead_to_members_alone(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(png(9))
    hard, soft = tarfile.LNKTYPE, tarfile.SYMTYPE
    path = tar(
        tmp_path / "x.tar",
        member("./a/one.png", png(1)),
        member("b/hard.png", type=hard, linkname="./a/one.png"),
        member("b/soft.png", type=soft, linkname="../a/one.png"),
        member("b/twice.png", type=soft, linkname="soft.png"),
        member("lost.png", type=soft, linkname=str(tmp_path / "outside.png")),
        member("round.png", type=soft, linkname="round.png"),
        member("device.png", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
        member("pipe.png", type=tarfile.FIFOTYPE),
        member("folder.png", type=tarfile.DIRTYPE),
        member("._fork.png", b"\0\5\x16\7"),
    )
    images = open_images(path)
    assert images.ids == ["a/one.png", "b/hard.png", "b/soft.png", "b/twice.png", "lost.png", "round.png"]
    assert [images.read(k).getpixel((0, 0)) for k in range(4)] == [(1, 0, 0)] * 4
    for k in (4, 5):
        assert "cannot be read (a link to what the tar does not hold): replace it" in complaint(path, k)


def test_two_members_of_a_name(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", member("a.png", png(1)), member("./a.png", png(2)))
    assert 'holds the image id "a.png" twice: ids must be unique' in complaint(path)


def test_a_name_in_a_tar_that_is_not_utf8(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as file:
        info, data = member("caf\u00e9.png", png())
        file.addfile(info, io.BytesIO(data))
    assert r"holds a name that is not UTF-8 ('caf\udce9.png'): rename the file" in complaint(tmp_path / "x.tar")


def test_a_damaged_tar_loses_nothing_in_silence(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", *(member(f"{k}.png", png(k)) for k in range(4)))
    whole = path.read_bytes()
    assert len(open_images(path)) == 4
    path.write_bytes(whole[:2048] + b"?" * 512 + whole[2560:])
    assert "x.tar is damaged at byte 2048: make it again" in complaint(path)
    path.write_bytes(whole[: 2048 + 300])
    assert "x.tar is damaged at byte 2048" in complaint(path)
    path.write_bytes(whole[: 2048 + 520])
    assert "unexpected end of data" in complaint(path)
    path.write_bytes(whole[:4096])  # the blocks of zeros at the end are missing, and no more
    assert len(open_images(path)) == 4


@pytest.mark.parametrize("size", [b"77777777777\0", b"\xff" * 12, b"\x80" + b"\x7f" * 11, b"nonsense\0\0\0\0"])
@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"S"])
def test_headers_that_lie(tmp_path: Path, size: bytes, kind: bytes) -> None:
    block = bytearray(member("a.png")[0].tobuf()[:512])
    block[124:136], block[156:157] = size, kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "x.tar").write_bytes(bytes(block) + png().ljust(512, b"\0") + bytes(1024))
    assert "x.tar" in complaint(tmp_path / "x.tar")


# --- Parquet


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


ODD_IDS = [
    "../../x",
    "/etc/passwd",
    "line\nbreak",
    "nul\0nul",
    "<script>alert(1)</script>",
    "n" * 300,
    "None",
    "nan",
    " ",
]


def test_ids_are_only_names(tmp_path: Path) -> None:
    path = parquet(tmp_path / "x.parquet", id=ODD_IDS, image=[png(k) for k in range(len(ODD_IDS))])
    assert shades(path) == {name: k for k, name in enumerate(ODD_IDS)}
    for position in range(len(ODD_IDS)):
        broken = parquet(tmp_path / "y.parquet", id=ODD_IDS, image=[b"?"] * len(ODD_IDS))
        assert complaint(broken, position).isprintable()


@pytest.mark.parametrize(
    "kind", [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.binary())]
)
def test_bytes_of_every_kind(tmp_path: Path, kind: pa.DataType) -> None:
    column = (
        pa.array([png(3), None], pa.binary()).cast(kind) if kind != pa.binary_view() else pa.array([png(3), None], kind)
    )
    path = parquet(tmp_path / "x.parquet", id=[7, 8], image=column)
    assert open_images(path).ids == ["7", "8"]
    assert open_images(path).read(0).getpixel((0, 0)) == (3, 0, 0)
    assert "row 1 ('8') holds no image bytes: fill or remove it" in complaint(path, 1)


def test_images_as_hugging_face_writes_them(tmp_path: Path) -> None:
    (tmp_path / "outside.png").write_bytes(png(9))
    rows = [{"bytes": png(4), "path": None}, {"bytes": None, "path": str(tmp_path / "outside.png")}]
    path = parquet(tmp_path / "x.parquet", id=["a", "b"], image=rows)
    assert open_images(path).read(0).getpixel((0, 0)) == (4, 0, 0)
    assert "row 1 ('b') holds no image bytes" in complaint(path, 1)  # a path in somebody's file is not followed


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": ["a"], "image": ["a.png"]}, "the column 'image' is string: give the encoded files' bytes"),
        ({"id": ["a"], "image": [[1, 2, 3]]}, "the column 'image' is list<"),
        ({"id": ["a"], "image": [{"path": "a.png"}]}, "the column 'image' is struct<path: string>"),
        ({"id": [1.5], "image": [b"x"]}, "the column 'id' is double: make it text"),
        ({"id": [b"a"], "image": [b"x"]}, "the column 'id' is binary: make it text"),
        ({"id": ["a", "b", ""], "image": [b"x"] * 3}, "row 2 (counting from 0) has no id: fill or remove it"),
        ({"id": ["a", "a\n", "a\n"], "image": [b"x"] * 3}, r'holds the image id "a\n" twice'),
        ({"id": [None, "a"], "image": [b"x"] * 2}, "row 0 (counting from 0) has no id"),
    ],
)
def test_columns_of_the_wrong_kind(tmp_path: Path, columns: dict[str, Any], said: str) -> None:
    assert said in complaint(parquet(tmp_path / "x.parquet", **columns))


def test_two_columns_of_a_name(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([png()])], names=["id", "id", "image"])
    pq.write_table(table, tmp_path / "x.parquet")
    assert "(it has 'id', 'id', 'image'): rename them" in complaint(tmp_path / "x.parquet")


def test_ids_that_are_not_utf8(tmp_path: Path) -> None:
    text = pa.StringArray.from_buffers(1, pa.array([0, 4], pa.int32()).buffers()[1], pa.py_buffer(b"caf\xe9"))
    path = parquet(tmp_path / "x.parquet", id=text, image=[png()])
    assert "x.parquet is damaged ('utf-8' codec can't decode" in complaint(path)


def test_damaged_row_groups_are_named(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"id": list("abcdef"), "image": [png(k) for k in range(6)]}),
        path,
        row_group_size=2,
        compression="zstd",
    )
    data = bytearray(path.read_bytes())
    place = pq.ParquetFile(path).metadata.row_group(1).column(1)
    start = place.dictionary_page_offset or place.data_page_offset
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(data)
    assert open_images(path).read(0).getpixel((0, 0)) == (0, 0, 0)
    assert "rows 2 to 3 are damaged (" in complaint(path, 2)
    assert open_images(path).read(4).getpixel((0, 0)) == (4, 0, 0)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_truncated_parquet(tmp_path: Path, share: float) -> None:
    path = parquet(tmp_path / "x.parquet", id=list("abc"), image=[png(k) for k in range(3)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    assert "x.parquet is not a Parquet file (" in complaint(path)


def test_one_huge_row_group(tmp_path: Path) -> None:
    n = 20_000
    table = pa.table({"id": [str(k) for k in range(n)], "image": [png(k % 256) for k in range(n)]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=n)
    images = open_images(tmp_path / "x.parquet")
    assert [images.read(k).getpixel((0, 0)) for k in (n - 1, 0, 77)] == [((n - 1) % 256, 0, 0), (0, 0, 0), (77, 0, 0)]
