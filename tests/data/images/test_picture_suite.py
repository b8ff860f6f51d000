"""Pictures of every kind: the pixels of Pillow's exif_transpose on white, or one line that says why not."""
from __future__ import annotations

import io
import os
import subprocess
import sys
import time
import warnings

import numpy as np
import odd_pictures
import pytest
from conftest import ROOT
from PIL import Image, ImageOps

from gluon_ft.data.images import decode, header
from gluon_ft.data.images.header import Unreadable

PICTURES = odd_pictures.pictures()
REFUSED = {"tiff F", "ppm F", "postscript"}  # which Pillow gives, though not as pixels from 0 to 255 or by itself


def on_white(data: bytes) -> np.ndarray | None:
    """By Pillow alone; None where it gives no picture."""
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as image:
            warnings.simplefilter("ignore")
            turned = ImageOps.exif_transpose(image)
            if turned.mode.startswith("I"):
                turned = Image.fromarray(np.rint(np.asarray(turned) / 257).astype(np.uint8))
            if turned.mode in ("RGBA", "LA", "PA") or "transparency" in turned.info:
                turned = turned.convert("RGBA")
                turned = Image.alpha_composite(Image.new("RGBA", turned.size, "white"), turned)
            return np.asarray(turned.convert("RGB"))
    except Exception:
        return None


def ours(data: bytes) -> np.ndarray | str:
    """The pixels, or why there are none: one line."""
    try:
        pixels = decode.decode_rgb(data)
    except Unreadable as error:
        assert str(error).strip() and "\n" not in str(error)
        return str(error)
    assert pixels.shape[1::-1] == header.probe(data).upright
    return pixels


def same(name: str, got: np.ndarray, wanted: np.ndarray) -> bool:
    # OpenCV's libjpeg and Pillow's round differently.
    return got.shape == wanted.shape and np.abs(got.astype(int) - wanted).max() <= (4 if name.startswith("jpeg") else 0)


@pytest.mark.parametrize("name", PICTURES)
def test_as_pillow_on_white(name):
    got, wanted = ours(PICTURES[name]), on_white(PICTURES[name])
    if wanted is None or name in REFUSED:
        assert isinstance(got, str)
    else:
        assert not isinstance(got, str), got
        assert same(name, got, wanted)
        difference = np.abs(decode.decode_rgb(PICTURES[name], 1) - got @ (0.299, 0.587, 0.114))
        # A JPEG has its grey in a channel of its own, and its colours may not all be possible.
        assert difference.mean() < 10 if name.startswith(("jpeg", "mpo")) else difference.max() < 1.01


@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_what_is_cut_off_is_refused_or_as_pillow_has_it(share):
    refused = 0
    for name, data in PICTURES.items():
        cut = data[:int(share * len(data))]
        got = ours(cut)
        refused += isinstance(got, str)
        if not isinstance(got, str) and not name.startswith(("jpeg", "mpo")):
            wanted = on_white(cut)
            assert wanted is not None, name
            assert same(name, got, wanted), name
    assert refused > 0.6 * len(PICTURES)


def damaged(count: int):
    """(name, data) of pictures with a few bytes changed, and some of them without an end."""
    names, rng = sorted(PICTURES), np.random.default_rng(2)
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(PICTURES[name] or b"x")
        near = len(data) if number % 3 else min(len(data), 200)  # headers, mostly
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(near)] = rng.integers(256)
        yield name, bytes(data[:rng.integers(1, len(data) + 1)] if number % 5 == 0 else data)


def test_damage_is_refused_in_one_line_or_decoded():
    for _, data in damaged(400):
        ours(data)


@pytest.mark.slow
def test_damage_of_many_kinds():
    for name, data in damaged(8000):
        begin = time.monotonic()
        ours(data)
        assert time.monotonic() - begin < 3, name


CHILD = """import sys, time
from pathlib import Path
from gluon_ft.data.images import decode, header
def peak():  # of this process; ru_maxrss begins with the parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
decode.decode_rgb(Path(sys.argv[1]).read_bytes())  # the libraries are loaded
for path in sys.argv[2:]:
    before = peak()
    seconds = []
    for _ in range(2):  # the better of two, since other processes slow this one down
        begin = time.process_time()
        try:
            result = decode.decode_rgb(header.read_file(path)).shape
        except header.Unreadable as error:
            result = str(error)
        seconds.append(time.process_time() - begin)
    taken = (peak() - before) // 1024
    print(f"{min(seconds):.2f}\\t{taken}\\t{result}")
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads its peak of memory from /proc")
@pytest.mark.parametrize("name", odd_pictures.BOMBS)
def test_three_seconds_and_700_mb_a_file(name, tmp_path):
    (tmp_path / "first").write_bytes(PICTURES["jpeg RGB"])
    (tmp_path / "x.png").write_bytes(odd_pictures.BOMBS[name]())
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path / "first"), str(tmp_path / "x.png")],
                          capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    (line,) = done.stdout.splitlines()
    seconds, megabytes, result = line.split("\t")
    assert float(seconds) < 3 and int(megabytes) < 700, line
    assert done.stderr == ""
    assert ("81 megapixels" in name and name.startswith("png")) == result.startswith("(9000, 9000"), line


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads its peak of memory from /proc")
def test_all_pictures_together_take_no_more(tmp_path):
    for number, data in enumerate(PICTURES.values()):
        (tmp_path / f"{number:03d}.jpg").write_bytes(data)
    first = tmp_path / "first"
    first.write_bytes(PICTURES["jpeg RGB"])
    done = subprocess.run([sys.executable, "-c", CHILD, str(first), *map(str, sorted(tmp_path.glob("*.jpg")))],
                          capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(rows) == len(PICTURES)
    assert all(float(seconds) < 3 and int(megabytes) < 700 for seconds, megabytes, _ in rows)
