"""Pictures that are very long and thin, through everything that resizes: the same pixels, in little memory."""
from __future__ import annotations

import io
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from gluon_ft.data.audit import checks
from gluon_ft.data.images import decode, header, transforms
from gluon_ft.data.images.augment import PROCEDURES
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import INTERPOLATIONS, Transform

RAW = {"mean": (0, 0, 0), "std": (1, 1, 1), "scale": 1}
THIN = [(1, 3000), (3000, 1), (2, 4999), (7, 6502), (1, 1), (3, 1), (50, 3000)]


def picture(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


def saved(array, kind="PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, kind)
    return out.getvalue()


def whole(image, size, resize):
    """As it was done before: resized whole."""
    height, width = image.shape[:2]
    if resize is not None:
        new = (resize, resize * height // width) if height > width else (resize * width // height, resize)
        image = cv2.resize(image, new)
    for edge in (0, 1):
        if image.shape[edge] < size:
            factor = np.float32(size) / np.float32(image.shape[edge])
            new = [int(factor * np.float32(n)) for n in image.shape[1::-1]]
            new[1 - edge] = size
            image = cv2.resize(image, new)
    return image


@pytest.mark.parametrize("resize", [40, None])
@pytest.mark.parametrize("shape", THIN)
def test_a_part_has_the_pixels_of_the_whole(shape, resize, monkeypatch):
    image, size = picture(*shape), 32
    expected = whole(image, size, resize)
    top, left = (expected.shape[0] - size) // 2, (expected.shape[1] - size) // 2
    draws = np.random.RandomState(3)
    y, x = draws.randint(expected.shape[0] - size + 1), draws.randint(expected.shape[1] - size + 1)
    for most in (transforms.MOST_PIXELS, 1 << 18):  # with the second, parts of what is longer are resized
        monkeypatch.setattr(transforms, "MOST_PIXELS", most)
        same = expected.shape[0] * expected.shape[1] <= most
        got = transforms.centre_crop(image, size, resize=resize)
        compare(got, expected[top:top + size, left:left + size], same)
        got = transforms.random_crop(image, size, np.random.RandomState(3), resize=resize)
        compare(got, expected[y:y + size, x:x + size], same)


def compare(got, expected, same, levels=1):
    difference = np.abs(got.astype(int) - expected)
    assert got.shape == expected.shape
    # OpenCV computes places in 32 bits: at the far end of 40,000 pixels they are not quite those of a shorter part.
    assert difference.max() <= (0 if same else levels) and (difference > 0).mean() < 0.15


@pytest.mark.parametrize("name", INTERPOLATIONS)
def test_parts_of_enlarged_and_of_shrunken_images_by_every_interpolation(name, monkeypatch):
    for shape, wanted in (((3, 1700), (18133, 32)), ((90, 44000), (15644, 32)), ((2711, 5), (17, 19217))):
        image = picture(*shape)
        expected = cv2.resize(image, wanted, interpolation=INTERPOLATIONS[name])
        monkeypatch.setattr(transforms, "MOST_PIXELS", 1 << 18)
        assert wanted[0] * wanted[1] > 1 << 18
        for share in (0, 0.3, 0.77, 1):
            left, top = (round(share * (edge - 16)) for edge in wanted)
            got = transforms._part_of_resized(image, wanted, (left, top), 16, name)
            if name == "nearest":  # a pixel's neighbour may be the nearer one
                assert (got == expected[top:top + 16, left:left + 16]).mean() > 0.9
            else:
                compare(got, expected[top:top + 16, left:left + 16], same=False, levels=2)


@pytest.mark.parametrize("procedure", [None, "gluon", "im2rec", "none"])
@pytest.mark.parametrize("size", [(65500, 1), (1, 65500), (20000, 3), (1, 3)])
def test_training_and_evaluation_take_them(size, procedure):
    transform = Transform(Preprocessing(**RAW), PROCEDURES[procedure] if procedure else None)
    data = saved(np.full((*size, 3), (10, 200, 90), np.uint8))
    image = decode.decode_rgb(data, 3, transform.decode_resize())
    result = transform(image, np.random.RandomState(0))
    assert result.shape == (3, 224, 224)
    np.testing.assert_array_equal(np.unique(result.reshape(3, -1), axis=1), [[10], [200], [90]])


def test_audit_and_pack_take_them_or_say_why_not(tmp_path):
    for name, shape in (("long", (1, 65500)), ("tall", (9000, 2))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(saved(picture(*shape)))
    report = checks.audit([tmp_path])
    assert [finding.item.name for finding in report.findings["tiny"]] == ["long/x.png", "tall/x.png"]
    data = (tmp_path / "long" / "x.png").read_bytes()
    with pytest.raises(Unreadable, match="65500 x 1 pixels would become 16768000 x 256, more than 100 megapixels"):
        decode.convert(data, decode.ImageOptions(resize=256))
    done = decode.convert(data, decode.ImageOptions(resize=256, center_crop=True, encoding=".png", quality=1))
    assert done.size == (256, 256)
    with pytest.raises(Unreadable, match="65536 x 1 pixels, an edge of at most 65535 is decoded"):
        header.probe(saved(np.zeros((1, 65536), np.uint8)))


def test_too_little_memory_for_one_image_is_said_of_that_image(monkeypatch):
    def resize(*args, **options):
        raise cv2.error("Insufficient memory")

    monkeypatch.setattr(cv2, "resize", resize)
    with pytest.raises(Unreadable, match="cannot be resized: Insufficient memory"):
        Transform(Preprocessing())(picture(40, 50))
    with pytest.raises(Unreadable, match="cannot be resized: Insufficient memory"):
        Transform(Preprocessing(), PROCEDURES["gluon"])(picture(40, 50), np.random.RandomState(0))


CHILD = """import sys
import numpy as np
from gluon_ft.data.images import decode
from gluon_ft.data.images.augment import PROCEDURES
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.data.images.transforms import INTERPOLATIONS, Transform
def peak():  # of this process; ru_maxrss begins with the parent's
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
data = open(sys.argv[1], "rb").read()
before = peak()
for procedure in (None, *PROCEDURES.values()):
    transform = Transform(Preprocessing(), procedure)
    transform(decode.decode_rgb(data, 3, transform.decode_resize()), np.random.RandomState(0))
print((peak() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads its peak of memory from /proc")
@pytest.mark.parametrize("size", [(1, 3000), (3000, 1), (1, 65500), (65500, 1), (2, 65535)])
def test_they_take_less_than_200_mb(size, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(saved(picture(*size)))
    done = subprocess.run([sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert int(done.stdout) < 200
