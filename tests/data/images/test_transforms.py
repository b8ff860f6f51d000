"""Transforms against MXNet's own, and what `Preprocessing` asks for."""
from __future__ import annotations

import math
import random

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon.data.vision import transforms as mx_transforms
from scipy import stats

from gluon_ft.data.images import transforms
from gluon_ft.data.images.augment import PROCEDURES, Augmentation
from gluon_ft.data.images.preprocessing import INTERPOLATIONS, Preprocessing
from gluon_ft.data.images.transforms import Transform
from gluon_ft.errors import ConfigError

RAW = {"mean": (0, 0, 0), "std": (1, 1, 1), "scale": 1}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def picture(height, width, seed=0):
    return np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(333, 500), (500, 333), (301, 427), (256, 256), (40, 30), (257, 300)])
def test_evaluation_is_gluons_bit_for_bit(size):
    image = picture(*size)
    steps = [mx_transforms.Resize(256, keep_ratio=True), mx_transforms.CenterCrop(224), mx_transforms.ToTensor(),
             mx_transforms.Normalize(*IMAGENET)]
    expected = mx.nd.array(image, dtype="uint8")
    for step in steps:
        expected = step(expected)
    np.testing.assert_array_equal(Transform(Preprocessing())(image), expected.asnumpy())


def test_other_interpolations_are_mxnets_within_one_grey_level():
    image = picture(90, 130)
    for code, name in enumerate(INTERPOLATIONS):
        ours = transforms.resize_short(image, 64, name)
        theirs = mx.image.resize_short(mx.nd.array(image, dtype="uint8"), 64, interp=code).asnumpy()
        assert np.abs(ours.astype(int) - theirs).max() <= (1 if name == "bicubic" else 0), name


def test_random_part_has_mxnets_distribution():
    height, width, count = 60, 80, 1500
    source = mx.nd.array(picture(height, width), dtype="uint8")
    random.seed(5)
    theirs = np.array([mx.image.random_size_crop(source, (4, 4), (0.08, 1.0), (3 / 4, 4 / 3), 1)[1]
                       for _ in range(count)])
    rng = np.random.RandomState(5)
    ours = np.array([part for part in (transforms.random_part(height, width, rng) for _ in range(count)) if part])
    assert len(ours) > 0.95 * count
    for column, name in enumerate(("left", "top", "width", "height")):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 0.001, name
    shares, ratios = ours[:, 2] * ours[:, 3] / (height * width), ours[:, 2] / ours[:, 3]
    assert 0.07 < shares.min() < 0.1 and 0.9 < shares.max() <= 1
    assert 0.7 < ratios.min() < 0.8 and 1.25 < ratios.max() < 1.42


def test_a_random_part_is_resized_as_mxnet_does(monkeypatch):
    image, part = picture(120, 160), (17, 9, 101, 88)
    monkeypatch.setattr(transforms, "random_part", lambda *args: part)
    ours = transforms.random_resized_crop(image, 64, None)
    theirs = mx.image.fixed_crop(mx.nd.array(image, dtype="uint8"), *part, (64, 64), 1)
    np.testing.assert_array_equal(ours, theirs.asnumpy())


@pytest.mark.parametrize("size", [(10, 2000), (50, 3000), (3000, 80)])
def test_a_very_long_image_falls_back_to_mxnets_centre(size):
    image = picture(*size)
    rng = np.random.RandomState(0)
    assert transforms.random_part(*size, rng, scale=(0.9, 1)) is None
    ours = transforms.random_resized_crop(image, 64, rng, scale=(0.9, 1))
    theirs = mx.image.center_crop(mx.nd.array(image, dtype="uint8"), (64, 64), 1)[0]
    np.testing.assert_array_equal(ours, theirs.asnumpy())


def test_random_crop_takes_every_place_alike():
    image = np.arange(7 * 9, dtype=np.uint8).reshape(7, 9)
    rng = np.random.RandomState(0)
    counts = np.bincount([transforms.random_crop(image, 5, rng)[0, 0] for _ in range(3000)], minlength=63)
    places = image[:3, :5].ravel()
    assert set(np.flatnonzero(counts)) == set(places)
    assert stats.chisquare(counts[places]).pvalue > 0.001


def test_half_of_the_images_are_mirrored_and_nothing_else_happens():
    wanted = Preprocessing(size=32, resize=None, **RAW)
    transform = Transform(wanted, Augmentation(crop="centre"))
    image = picture(32, 32)
    plain = image.transpose(2, 0, 1).astype(np.float32)
    results = [transform(image, np.random.RandomState(i)) for i in range(300)]
    mirrored = sum(np.array_equal(r, plain[:, :, ::-1]) for r in results)
    assert mirrored + sum(np.array_equal(r, plain) for r in results) == 300
    assert 110 < mirrored < 190
    never = Transform(wanted, PROCEDURES["none"])
    assert all(np.array_equal(never(image, np.random.RandomState(i)), plain) for i in range(20))


@pytest.mark.parametrize("procedure", ["gluon", "im2rec"])
def test_the_seed_decides_and_the_next_seed_differs(procedure):
    transform = Transform(Preprocessing(size=48, resize=64), PROCEDURES[procedure])
    image = picture(90, 70)
    once, again, other = (transform(image, np.random.RandomState((7, i))) for i in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)


def test_im2rec_training_takes_a_crop_of_the_raw_values():
    image = picture(80, 64)
    result = Transform(Preprocessing(size=48, resize=64, **RAW), PROCEDURES["im2rec"])(image, np.random.RandomState(3))
    hits = [(y, x, flip) for y in range(33) for x in range(17) for flip in (1, -1)
            if np.array_equal(result, image[y:y + 48, x:x + 48][:, ::flip].transpose(2, 0, 1))]
    assert len(hits) == 1


def test_channel_order_range_rotation_and_grey():
    image = picture(20, 20)
    plain = Transform(Preprocessing(size=20, resize=None, **RAW))(image)
    np.testing.assert_array_equal(plain, image.transpose(2, 0, 1))
    bgr = Preprocessing(size=20, resize=None, mean=(1, 2, 3), std=(1, 2, 4), scale=1, channel_order="bgr")
    expected = (plain[::-1] - np.float32([1, 2, 3]).reshape(3, 1, 1)) / np.float32([1, 2, 4]).reshape(3, 1, 1)
    np.testing.assert_array_equal(Transform(bgr)(image), expected)
    turned = Transform(Preprocessing(size=20, resize=None, rotate180=True, **RAW))(image)
    np.testing.assert_array_equal(turned, plain[:, ::-1, ::-1])
    unit = Transform(Preprocessing(size=20, resize=None, mean=(0, 0, 0), std=(1, 1, 1)))(image)
    assert unit.dtype == np.float32 and unit.max() <= 1
    np.testing.assert_allclose(unit * 255, plain, atol=1e-4)
    grey = Transform(Preprocessing(size=20, resize=None, mean=(0.5,), std=(0.5,), channel_order="gray"))
    result = grey(image[:, :, 0])
    assert result.shape == (1, 20, 20)
    np.testing.assert_allclose(result[0], image[:, :, 0] / 127.5 - 1, atol=1e-6)


def test_interpolation_is_honoured():
    image = picture(100, 100)
    results = [Transform(Preprocessing(size=32, resize=40, interpolation=name))(image) for name in INTERPOLATIONS]
    for i, one in enumerate(results):
        assert all(np.abs(one - other).max() > 0.1 for other in results[i + 1:]), INTERPOLATIONS[i]


def test_an_image_smaller_than_the_crop_is_enlarged():
    wanted = Preprocessing(size=64, resize=None, **RAW)
    for height, width in ((80, 50), (50, 80), (30, 40), (1, 1)):
        image = picture(height, width)
        result = Transform(wanted)(image)
        assert result.shape == (3, 64, 64)
        assert Transform(wanted, PROCEDURES["im2rec"])(image, np.random.RandomState(0)).shape == (3, 64, 64)
    # Gluon crops first and enlarges then, which differs at the edges of the crop only.
    smooth = transforms.resize_short(picture(4, 4), 50)
    theirs = mx.image.center_crop(mx.nd.array(smooth, dtype="uint8"), (64, 64), 1)[0].asnumpy()
    assert np.abs(Transform(wanted)(smooth) - theirs.transpose(2, 0, 1)).max() <= 1


def test_grey_images_have_no_saturation():
    grey = Preprocessing(size=28, resize=None, mean=(0,), std=(1,), channel_order="gray")
    with pytest.raises(ConfigError, match=r"saturation and hue of grey images; expected 0; found 0\.1"):
        Transform(grey, Augmentation(saturation=0.1, hue=0.1))


def test_reduced_decoding_leaves_enough_for_the_smallest_part():
    evaluation = Transform(Preprocessing())
    assert evaluation.decode_resize() == 256
    training = Transform(Preprocessing(), PROCEDURES["gluon"])
    left = 2 * training.decode_resize()
    # The smallest part: 0.08 of the area, three quarters as wide as high.
    assert math.sqrt(0.08 * 3 / 4) * left >= 224
    assert Transform(Preprocessing(size=28, resize=None)).decode_resize() == 0
