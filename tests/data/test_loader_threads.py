"""The threads of loaders: they read ahead within bounds, decode alike, and end."""
from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
from loader_images import folder_fixture, make_folder, opened, own_threads, rows  # noqa: F401  (fixtures)

from gluon_ft.data import workers
from gluon_ft.data.images import decode


def test_stopping_midway_ends_the_threads_and_wastes_little(folder, monkeypatch):
    loader = opened(folder, True, batch_size=2, workers=2, ahead=1)
    for batch in loader:
        assert batch.valid == 2 and len(own_threads()) == 2
        break
    assert not own_threads()
    iterator = iter(loader)
    next(iterator)
    iterator.close()
    assert not own_threads()
    assert loader.epoch == 2 and len(rows(loader)[0]) == 21


def test_reading_ahead_is_bounded_and_overlaps():
    filled, lock = [], threading.Lock()

    def fill(position, out):
        with lock:
            filled.append(position)
        out[:] = position

    batches = [np.arange(i, i + 2) for i in range(0, 40, 2)]
    iterator = workers.filled(batches, (3,), fill, 2, 3)
    for i in range(6):
        positions, data = next(iterator)
        assert positions.tolist() == [2 * i, 2 * i + 1] and data.tolist() == [[2 * i] * 3, [2 * i + 1] * 3]
        assert data.ctypes.data % 64 == 0
        deadline = time.time() + 10
        while len(filled) < 2 * (i + 4) and time.time() < deadline:
            time.sleep(0.001)
        # This batch and three more, made while the consumer has this one.
        assert sorted(filled) == list(range(2 * (i + 4)))
    iterator.close()
    assert len(filled) == 18 and not own_threads()


def test_batches_outlive_the_loader(folder):
    batches = list(opened(folder, batch_size=1))
    again = list(opened(folder, batch_size=1))
    assert all(np.array_equal(a.data.asnumpy(), b.data.asnumpy()) for a, b in zip(batches, again))


def test_an_iterator_left_open_does_not_keep_the_interpreter(folder):
    code = ("import sys, gluon_ft\nfrom gluon_ft import loaders\nfrom gluon_ft.data.images.preprocessing import "
            "Preprocessing\nloader = loaders.make_loader(sys.argv[1], preprocessing=Preprocessing(size=32, resize=40), "
            "train=True, batch_size=2, workers=2)\niterator = iter(loader)\nprint(next(iterator).valid)\n")
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, timeout=60,
                          check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2\n", "")


def test_threads_decode_every_kind_of_image(tmp_path):
    """PNG, 16 bits, palette and grey through Pillow and OpenCV at once give what one thread gives."""
    from PIL import Image

    folder = make_folder(tmp_path / "mixed", per_class=6, suffix=".jpg")
    Image.fromarray(np.full((50, 50), 40000, np.uint16)).save(folder / "ant" / "deep.png")
    Image.new("P", (50, 50), 3).save(folder / "bee" / "palette.gif")
    Image.new("L", (50, 50), 90).save(folder / "cat" / "grey.jpg")
    limit = decode.Image.MAX_IMAGE_PIXELS
    one = rows(opened(folder, workers=0))[0]
    for _ in range(3):
        np.testing.assert_array_equal(rows(opened(folder, workers=4))[0], one)
    assert limit == decode.Image.MAX_IMAGE_PIXELS
