"""Reading rows, and streaming them into a file: whole, in place, once, and again after a kill."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from olivine.errors import ModelError
from olivine.quant import streaming
from olivine.quant.kernels import encode
from olivine.quant.packing import pack
from olivine.quant.reading import TensorReader, widened
from olivine.quant.scheme import Scheme
from olivine.quant.streaming import Matrix, Region, Slice, Written, stored_scales, stream

ROWS, WIDTH = 37, 48


@pytest.fixture
def reader(tmp_path: Path) -> TensorReader:
    """A checkpoint of three matrices, in three types."""
    folder = tmp_path / "model"
    folder.mkdir()
    torch.manual_seed(0)
    tensors = {
        "a.weight": torch.randn(ROWS, WIDTH, dtype=torch.bfloat16),
        "b.weight": torch.randn(ROWS, WIDTH, dtype=torch.float16),
        "c.weight": torch.randn(ROWS, WIDTH),
        "ids": torch.arange(4),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text("{}")
    return TensorReader(folder)


def expected(reader: TensorReader, name: str) -> np.ndarray:
    """Return what safetensors says the tensor is, in float32."""
    from safetensors.torch import load_file

    return np.asarray(load_file(reader.checkpoint.path / "model.safetensors")[name].float().numpy())


@pytest.mark.parametrize("name", ["a.weight", "b.weight", "c.weight"])
def test_rows_are_read_in_every_type(reader: TensorReader, name: str) -> None:
    np.testing.assert_array_equal(reader.read(name), expected(reader, name))
    np.testing.assert_array_equal(reader.read_rows(name, 5, 9), expected(reader, name)[5:9])


def test_every_bfloat16_is_widened_as_torch_does() -> None:
    raw = np.arange(2**16, dtype=np.uint16)
    np.testing.assert_array_equal(widened(raw), torch.from_numpy(raw).view(torch.bfloat16).float().numpy())


def test_integers_are_no_weights(reader: TensorReader) -> None:
    with pytest.raises(ModelError, match="ids is stored as I64, which is no type of unquantised weights"):
        reader.read("ids")


def test_file_that_shrinks_while_it_is_read(reader: TensorReader) -> None:
    file = reader.checkpoint.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    last = max(reader.tensors, key=lambda name: reader.tensors[name].offset)
    with pytest.raises(ModelError, match=r"model\.safetensors ends before its last tensor does"):
        reader.read_bytes(last, 0, reader.tensors[last].bytes)


def matrices(scheme: Scheme | None, method: str = "search") -> tuple[list[Matrix], int]:
    """Return a matrix per tensor, and one that joins rows of two, with the size of their file."""
    slices = {each: (Slice(f"{each}.weight", 0, ROWS),) for each in "abc"}
    slices["joined"] = (Slice("b.weight", 3, 20), Slice("c.weight", 1, 8))
    size = 0
    made = []
    for name, parts in slices.items():
        rows = sum(each.rows for each in parts)
        codes = rows * WIDTH * 4
        region = Region(size, size + codes, None if scheme is None or scheme.symmetric else size + 2 * codes)
        made.append(Matrix(name, parts, WIDTH, scheme, method, "float32", region))  # type: ignore[arg-type]
        size += 3 * codes
    return made, size


def run(reader: TensorReader, folder: Path, made: list[Matrix], size: int) -> tuple[list[Written], bytes, list[str]]:
    """Stream into a new file, or the one that is there; return what is said of it, it, and the names as they came."""
    file = folder / "data"
    if not file.exists():
        with open(file, "wb") as opened:
            opened.truncate(size)
    said: list[str] = []
    written = stream(made, reader, file, folder / "journal", threads=3, done=lambda each: said.append(each.name))
    return written, file.read_bytes(), said


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("method", "tile"),
    [("search", WIDTH), ("search", 5 * WIDTH), ("search", 1 << 20), ("hqq", 1 << 20)],  # torch's sums go by the tile
)
def test_file_holds_every_matrix_whatever_the_tiles(
    symmetric: bool, method: str, tile: int, reader: TensorReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "TILE", tile)
    scheme = Scheme(4, 32, symmetric)
    made, size = matrices(scheme, method)
    written, data, _ = run(reader, tmp_path, made, size)
    for matrix, said in zip(made, written, strict=True):
        rows = [expected(reader, each.tensor)[each.start : each.stop] for each in matrix.slices]
        weight = np.concatenate(rows)
        scales, zeros = stored_scales(weight, scheme, method, "float32")  # type: ignore[arg-type]
        packed, lost, whole = encode(weight, scheme, scales, zeros)
        assert at(data, matrix.region.codes, packed) == packed.tobytes()
        assert at(data, matrix.region.scales, scales) == scales.tobytes()
        if matrix.region.zeros is not None:
            assert at(data, matrix.region.zeros, pack(zeros, 4)) == pack(zeros, 4).tobytes()
        assert said.error == pytest.approx((lost / whole) ** 0.5, rel=1e-5)


def at(data: bytes, place: int, values: np.ndarray) -> bytes:
    """Return as many bytes at ``place`` as ``values`` has."""
    return data[place : place + values.nbytes]


def test_what_is_not_rounded_is_written_as_it_is(reader: TensorReader, tmp_path: Path) -> None:
    made, size = matrices(None)
    written, data, _ = run(reader, tmp_path, made, size)
    stored = np.frombuffer(data, np.float32, ROWS * WIDTH, made[1].region.codes).reshape(ROWS, WIDTH)
    np.testing.assert_array_equal(stored, expected(reader, "b.weight"))
    assert [each.error for each in written] == [0.0] * 4


def test_a_second_run_does_what_the_journal_lacks(reader: TensorReader, tmp_path: Path) -> None:
    made, size = matrices(Scheme())
    first, data, said = run(reader, tmp_path, made, size)
    assert said == ["a", "b", "c", "joined"]
    journal = tmp_path / "journal"
    lines = journal.read_text().splitlines()
    assert [json.loads(line)["name"] for line in lines] == said
    journal.write_text("\n".join(lines[:2]) + "\n" + lines[2][:10])  # it died over the third line
    file = tmp_path / "data"
    place = made[2].region.codes
    with open(file, "r+b") as opened:
        opened.seek(place)
        opened.write(bytes(64))
    before = data[made[0].region.codes : made[0].region.codes + 16]
    again, repaired, _ = run(reader, tmp_path, made, size)
    assert again == first
    assert repaired == data
    assert repaired[made[0].region.codes : made[0].region.codes + 16] == before
    assert [json.loads(line)["name"] for line in journal.read_text().splitlines()] == said


def test_what_fails_in_a_thread_is_told(reader: TensorReader, tmp_path: Path) -> None:
    made, size = matrices(Scheme())
    (reader.checkpoint.path / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError):
        run(reader, tmp_path, made, size)
    assert not (tmp_path / "journal").exists()
