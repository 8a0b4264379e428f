"""Pickles of plain values: dictionaries, lists, texts and numbers. Nothing in one is ever run."""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import TYPE_CHECKING, Any, Never

from likemind.errors import LikemindError, first_line, shown

if TYPE_CHECKING:
    from pathlib import Path

_PLAIN = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT
    BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES
    BINBYTES8 BYTEARRAY8 EMPTY_LIST APPEND APPENDS LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT DICT SETITEM
    SETITEMS EMPTY_SET ADDITEMS FROZENSET GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE
"""
"""Instructions that make builtin values and no others."""

_TUPLES = 10_000
"""More of them, one inside the other, could overflow Python's stack when they are a dictionary's key."""

_BROKEN = (
    pickle.UnpicklingError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    MemoryError,
    AttributeError,
)


class _PlainUnpickler(pickle.Unpickler):
    """The second wall, behind ``_check``."""

    def find_class(self, module: str, name: str) -> Never:
        raise pickle.UnpicklingError(f"it names {module}.{name}")

    def persistent_load(self, pid: Any) -> Never:  # noqa: ARG002
        raise pickle.UnpicklingError("it names a persistent id")


def load_plain(path: Path) -> Any:
    """Load a pickle that holds builtin values alone.

    First all of its instructions are read, without following any. One that names a class, a function or a persistent
    id, or that asks for a table larger than the file, is refused.

    Raises:
        LikemindError: The file holds anything else (what is named), is cut off, or is no pickle.
    """
    data = path.read_bytes()
    try:
        refused = _check(data)
        if refused is None:
            return _PlainUnpickler(io.BytesIO(data), encoding="utf-8").load()
    except _BROKEN as error:
        raise LikemindError(f"{path} is not a whole pickle ({shown(first_line(error))}): fetch it again") from None
    raise LikemindError(
        f"{path} holds {shown(refused)}, which could do harm: only builtin types are read, "
        "so save it again as dictionaries, lists, texts and numbers"
    )


def _check(data: bytes) -> str | None:
    """Return what is not plain in a pickle, if anything is."""
    plain = frozenset(_PLAIN.split())
    texts, tuples = ["?", "?"], 0
    for count, (instruction, argument, _) in enumerate(pickletools.genops(io.BytesIO(data))):
        name = instruction.name
        if name in ("GLOBAL", "INST"):
            return str(argument).replace(" ", ".")
        if name == "STACK_GLOBAL":
            return ".".join(texts)
        if name not in plain:
            return "a persistent id" if "PERSID" in name else f"the instruction {name}"
        if name.endswith("PUT") and int(argument or 0) > count:
            raise pickle.UnpicklingError("its table of values is larger than the file")
        tuples += name.startswith("TUPLE")
        if tuples > _TUPLES:
            return f"more than {_TUPLES} tuples"
        if isinstance(argument, str):
            texts = [texts[1], argument[:100]]
    return None
