"""IDX files: every type, every kind of damage, the pair, the names, fuzzing."""
from __future__ import annotations

import gzip
import math
import random
import struct
import time
import zlib

import numpy as np
import pytest
from conftest import shared_data

from gluon_ft.data.sources import idx
from gluon_ft.errors import DataError


def encode(array: np.ndarray) -> bytes:
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


IMAGES = (np.arange(5 * 4 * 3) * 4).astype(np.uint8).reshape(5, 4, 3)
LABELS = np.array([3, 1, 4, 1, 5], np.uint8)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_type_gzipped_or_not(tmp_path, dtype, zipped):
    array = (np.arange(24).reshape(2, 3, 4) - (0 if dtype == "u1" else 7)).astype(dtype)
    path = tmp_path / "whatever.gz"  # the contents tell, not the name
    path.write_bytes(gzip.compress(encode(array)) if zipped else encode(array))
    back = idx.read(path)
    assert back.dtype == array.dtype
    assert back.dtype.isnative
    assert back.flags.writeable
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("change, wording", [
    (lambda d: b"", "not an IDX file; expected 0x0000, a type code from 0x08 to 0x0e, and 1 to 8 dim"),
    (lambda d: d[:3], "not an IDX file"),
    (lambda d: b"\1" + d[1:], "not an IDX file.*found 0x01000803"),
    (lambda d: d[:2] + b"\x0a" + d[3:], "not an IDX file"),
    (lambda d: d[:3] + b"\0" + d[4:], "not an IDX file"),
    (lambda d: d[:3] + b"\x09" + d[4:], "not an IDX file"),
    (lambda d: d[:9], "IDX header is cut short; expected 16 bytes of header; found 9"),
    (lambda d: d[:-1], r"IDX file is cut short; expected 60 bytes of values for \(5, 4, 3\) of uint8; found 59; fetch"),
    (lambda d: d + b"\0", "IDX file has bytes after its values; expected 60 bytes"),
    (lambda d: d[:4] + bytes(4) + d[8:], "IDX file without values"),
    (lambda d: d[:4] + b"\xff" * 12 + d[16:], "IDX file is too large; expected at most 1073741824 bytes"),
])
def test_damage_is_told(tmp_path, change, wording, zipped):
    path = tmp_path / "images"
    data = change(encode(IMAGES))
    path.write_bytes(gzip.compress(data) if zipped else data)
    with pytest.raises(DataError, match=wording) as error:
        idx.read(path)
    assert str(error.value).startswith(f"{path}: ")


def test_damaged_gzip(tmp_path):
    path = tmp_path / "images.gz"
    whole = gzip.compress(encode(np.random.default_rng(0).integers(0, 256, (50, 28, 28), np.uint8)))
    for data in (whole[:-20], whole[:5], whole[:200], whole[:-8] + bytes(4) + whole[-4:], whole + b"rubbish",
                 whole[:3] + b"\x80" + whole[4:]):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"images.gz: damaged gzip stream; expected a whole gzip file.*fetch"):
            idx.read(path)


def test_a_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", 1) as out:  # 256 MB of zeros behind a header that promises 60 bytes
        out.write(encode(IMAGES))
        for _ in range(64):
            out.write(bytes(1 << 22))
    began = time.perf_counter()
    with pytest.raises(DataError, match=r"bytes after its values; expected 60 bytes .*found more"):
        idx.read(path)
    assert time.perf_counter() - began < 1
    path.write_bytes(gzip.compress(struct.pack(">BBBB2I", 0, 0, 8, 2, 1000, 1000) + bytes(1000000)))
    with pytest.raises(DataError, match="at most 999999 bytes of values; found 1000000 bytes"):
        idx.read(path, limit=999999)
    assert idx.read(path, limit=1000000).shape == (1000, 1000)


def test_missing_and_special_files(tmp_path):
    with pytest.raises(DataError, match="none: no such file; expected an IDX file"):
        idx.read(tmp_path / "none")
    with pytest.raises(DataError, match="not a file"):
        idx.read(tmp_path)


def test_pair(tmp_path):
    images, labels = tmp_path / "i", tmp_path / "l"
    images.write_bytes(encode(IMAGES))
    labels.write_bytes(gzip.compress(encode(LABELS)))
    pixels, classes = idx.read_pair(images, labels)
    np.testing.assert_array_equal(pixels, IMAGES)
    np.testing.assert_array_equal(classes, LABELS)
    with pytest.raises(DataError, match=r"l: not the kind of IDX file that is needed; expected images: uint8 with 3 "
                                        r"dimensions; found uint8 with shape \(5,\); see whether images and labels"):
        idx.read_pair(labels, images)
    labels.write_bytes(encode(LABELS[:4]))
    with pytest.raises(DataError, match=r"l: not as many labels as images; expected 5 as in .*; found 4"):
        idx.read_pair(images, labels)


def test_names(tmp_path):
    with pytest.raises(DataError, match=r"no IDX files; expected train-images.*; found an empty folder"):
        idx.find(tmp_path)
    with pytest.raises(DataError, match="found no such folder"):
        idx.find(tmp_path / "none")
    (tmp_path / "t10k-images-idx3-ubyte.gz").touch()
    with pytest.raises(DataError, match=r"one IDX file of a pair is missing; expected t10k-labels-idx1-ubyte"):
        idx.find(tmp_path)
    (tmp_path / "t10k-labels.idx1-ubyte").touch()
    assert idx.find(tmp_path) == {"test": (tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "t10k-labels.idx1-ubyte")}
    for name in ("train-images.idx3-ubyte", "train-labels-idx1-ubyte.gz", "t10k-images-idx3-ubyte"):
        (tmp_path / name).touch()
    found = idx.find(tmp_path)
    assert list(found) == ["train", "test"]
    assert found["train"] == (tmp_path / "train-images.idx3-ubyte", tmp_path / "train-labels-idx1-ubyte.gz")
    assert found["test"][0].name == "t10k-images-idx3-ubyte"


def test_real_mnist():
    (images, labels), = idx.find(shared_data("mnist")).values()
    pixels, classes = idx.read_pair(images, labels)
    assert pixels.shape == (10000, 28, 28)
    # Counts of the published test set.
    assert np.bincount(classes).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (int(classes[0]), int(pixels.max())) == (7, 255)


def independent(data: bytes):
    """What the file holds by another reading of the format, or None where it is no whole IDX file."""
    if data[:2] == b"\x1f\x8b":
        try:
            inflate = zlib.decompressobj(31)
            plain = inflate.decompress(data)
            if not inflate.eof or inflate.unused_data.strip(b"\0"):
                return None
            data = plain
        except zlib.error:
            return None
    try:
        zero, code, dimensions = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dimensions}I", data, 4)
        letter = {8: "B", 9: "b", 11: "h", 12: "i", 13: "f", 14: "d"}[code]
        values = struct.unpack(f">{math.prod(shape)}{letter}", data[4 + 4 * dimensions:])
    except (struct.error, KeyError, MemoryError, OverflowError):
        return None
    return (shape, values) if zero == 0 and values and 1 <= dimensions <= 8 else None


@pytest.mark.slow
def test_fuzzed_files_are_refused_or_read_as_another_reader_reads_them(tmp_path):
    rng, path = random.Random(3), tmp_path / "x"
    plain = [encode(IMAGES), encode(LABELS), encode(np.linspace(-1, 1, 12).astype(np.float32).reshape(3, 4)),
             encode(np.arange(-3, 3).astype(np.int16))]
    whole = plain + [gzip.compress(data, mtime=0) for data in plain]
    read = refused = 0
    slowest = 0.0
    for _ in range(8000):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.choice((1, 1, 2, 3))):
            # Half of the changes go to the header, where they matter most.
            at = rng.randrange(min(16, len(data)) if rng.random() < 0.5 else len(data)) if data else 0
            kind = rng.randrange(5)
            if kind == 0 and data:
                data[at] = rng.choice((0, 1, 8, 9, 11, 12, 13, 14, 127, 255, rng.randrange(256)))
            elif kind == 1 and data:
                data[at] ^= 1 << rng.randrange(8)
            elif kind == 2:
                del data[at:len(data) if rng.random() < 0.4 else at + rng.randrange(1, 5)]
            elif kind == 3:
                data[at:at] = data[at:at + rng.randrange(1, 9)]
            else:
                data += bytes(rng.randrange(1, 4))
        path.write_bytes(data)
        expected = independent(bytes(data))
        began = time.perf_counter()
        try:
            array = idx.read(path)
        except DataError as error:
            assert str(path) in str(error)
            assert expected is None, bytes(data)
            refused += 1
        else:
            assert expected is not None, bytes(data)
            assert array.shape == expected[0]
            np.testing.assert_array_equal(array.ravel(), np.array(expected[1], array.dtype))
            read += 1
        slowest = max(slowest, time.perf_counter() - began)
    print(f"{read} read, {refused} refused, slowest {slowest:.4f} s")
    assert read > 500
    assert refused > 2000
    assert slowest < 5
