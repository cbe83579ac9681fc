"""Where an ONNX file says that its weights lie, read without loading it.

A protobuf message is a row of fields: a number that holds the field's key and wire type, then its value; only fields
that can lead to a tensor are entered, and weights inside the file are stepped over.
(Encoding: https://protobuf.dev/programming-guides/encoding; messages: onnx.proto.)
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from olivine.errors import Location, ModelError
from olivine.store.disk import bad_name

# Message: which of its fields hold which messages.
_MESSAGES: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_DEEPEST = 64


def external_files(file: Path) -> set[str]:
    """Return the locations of external data that the ONNX file names, as it writes them.

    Raises:
        ModelError: it is no ONNX file.
    """
    if file.stat().st_size == 0:
        raise ModelError(f"{file.name} is empty", where=Location(str(file)), remedy="copy or build the model again")
    with open(file, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            return set(_locations(content, 0, len(content), "model", 0))
        except (IndexError, ValueError) as error:
            raise ModelError(
                f"{file.name} is no whole ONNX file: {error}",
                where=Location(str(file)),
                remedy="copy or build the model again",
            ) from None


def check_external_data(file: Path) -> None:
    """Refuse an ONNX file whose weights would be read from elsewhere than beside it.

    Raises:
        ModelError: a location is absolute, leads out of the folder, or is a device or the like.
    """
    folder = file.parent.resolve()
    for location in sorted(external_files(file)):
        fault = bad_name(location)
        place = folder / location
        if not fault and place.exists():
            if not place.resolve().is_relative_to(folder):
                fault = "it is a link that leads out of the folder"
            elif not place.is_file():
                fault = "it is no regular file"
        if fault:
            raise ModelError(
                f"{file.name} takes its weights from {location!r}",
                where=Location(str(file)),
                why=f"{fault}; whoever made the model would have this machine read a file of their choice",
                remedy="use a model whose external data lies beside it",
            )


def _locations(content: mmap.mmap, at: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        raise ValueError("it is nested too deeply")
    inside = _MESSAGES[message]
    while at < end:
        key, at = _number(content, at)
        field, wire = key >> 3, key & 7
        if wire == 0:
            _, at = _number(content, at)
        elif wire in (1, 5):
            at += 8 if wire == 1 else 4
        elif wire == 2:
            length, at = _number(content, at)
            if at + length > end:
                raise ValueError("it is cut off")
            if inside.get(field) == "entry":
                name, value = _entry(content, at, at + length)
                if name == "location":
                    yield value
            elif field in inside:
                yield from _locations(content, at, at + length, inside[field], depth + 1)
            at += length
        else:
            raise ValueError("it holds something else")


def _entry(content: mmap.mmap, at: int, end: int) -> tuple[str, str]:
    """Return key and value of a StringStringEntryProto."""
    found = {1: "", 2: ""}
    while at < end:
        key, at = _number(content, at)
        if key & 7 != 2:
            raise ValueError("it holds something else")
        length, at = _number(content, at)
        found[key >> 3] = content[at : min(at + length, end)].decode("utf-8", "replace")
        at += length
    return found[1], found[2]


def _number(content: mmap.mmap, at: int) -> tuple[int, int]:
    """Return the varint at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number in it is too long")
