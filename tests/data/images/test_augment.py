"""Each augmentation: its effect, its range and its seed; and the settings that turn it on."""
from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from gluon_ft.data.images import augment
from gluon_ft.data.images.augment import OPERATIONS, Augmentation
from gluon_ft.errors import ConfigError


def picture(seed=0, size=40):
    values = np.random.RandomState(seed).randint(40, 216, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(values).resize((size, size), Image.Resampling.BICUBIC))


def rng(seed=0):
    return np.random.RandomState(seed)


def spread(function, count=200):
    return np.array([function(rng(i)) for i in range(count)])


@pytest.mark.parametrize("setting", [{"brightness": 0.4}, {"contrast": 0.4}, {"saturation": 0.4}, {"hue": 0.2},
                                     {"rotation": 20}, {"translation": 0.2}, {"randaugment": 3, "magnitude": 15},
                                     {"erasing": 1.0}])
def test_every_augmentation_changes_the_image_by_its_seed(setting):
    image = picture()
    kept = image.copy()
    chosen = Augmentation(**setting)
    assert chosen.beyond_crop_and_flip == [next(iter(setting))]
    results = [augment.apply(image, chosen, rng(i)) for i in range(8)]
    np.testing.assert_array_equal(augment.apply(image, chosen, rng(3)), results[3])
    np.testing.assert_array_equal(image, kept)
    assert all(r.shape == image.shape and r.dtype == np.uint8 for r in results)
    assert len({r.tobytes() for r in results} - {image.tobytes()}) >= 6
    grey = image[:, :, 0]
    if not set(setting) & {"saturation", "hue"}:
        assert augment.apply(grey, chosen, rng(1)).shape == grey.shape


def test_nothing_on_returns_the_image_and_draws_nothing():
    image, generator = picture(), rng()
    assert augment.apply(image, Augmentation(), generator) is image
    assert generator.uniform() == rng().uniform()


def test_brightness_scales_within_its_range():
    flat = Image.new("RGB", (4, 4), (100, 100, 100))
    levels = spread(lambda g: np.asarray(augment.colour_jitter(flat, 0.3, 0, 0, 0, g))[0, 0, 0])
    assert 69 <= levels.min() < 75 and 125 < levels.max() <= 130
    assert abs(levels.mean() - 100) < 4


def test_contrast_keeps_the_mean_and_changes_the_deviation():
    image = Image.fromarray(picture())
    grey = np.asarray(image.convert("L")).astype(float)
    ratios, means = [], []
    for i in range(100):
        changed = np.asarray(augment.colour_jitter(image, 0, 0.5, 0, 0, rng(i)).convert("L")).astype(float)
        ratios.append(changed.std() / grey.std())
        means.append(changed.mean())
    assert 0.45 < min(ratios) < 0.6 and 1.35 < max(ratios) < 1.55
    assert np.abs(np.array(means) - grey.mean()).max() < 3


def test_saturation_moves_between_grey_and_twice_the_colour():
    flat = Image.new("RGB", (4, 4), (150, 100, 100))
    gap = spread(lambda g: np.ptp(np.asarray(augment.colour_jitter(flat, 0, 0, 1.0, 0, g))[0, 0].astype(int)))
    assert gap.min() < 8 and 92 < gap.max() <= 101


def test_hue_turns_the_colour_and_keeps_the_value():
    red = Image.new("RGB", (4, 4), (200, 40, 40))
    colours = spread(lambda g: np.asarray(augment.colour_jitter(red, 0, 0, 0, 0.5, g))[0, 0].astype(int))
    assert (np.abs(colours.max(axis=1) - 200) <= 1).all()
    assert set(colours.argmax(axis=1)) == {0, 1, 2}
    slight = spread(lambda g: np.asarray(augment.colour_jitter(red, 0, 0, 0, 0.05, g))[0, 0].astype(int))
    assert (slight.argmax(axis=1) == 0).all() and slight[:, 1].max() > 60


def test_the_order_of_colour_jitter_is_drawn():
    image = Image.fromarray(picture())
    results = [np.asarray(augment.colour_jitter(image, 0.9, 0.9, 0, 0, rng(i))) for i in range(30)]
    orders = set()
    for i, result in enumerate(results):
        generator = rng(i)
        order = generator.permutation(2)
        expected = image
        for step in order:
            kind = (ImageEnhance.Brightness, ImageEnhance.Contrast)[step]
            expected = kind(expected).enhance(generator.uniform(1 - 0.9, 1 + 0.9))
        np.testing.assert_array_equal(result, np.asarray(expected))
        orders.add(tuple(order))
    assert len(orders) == 2


def _dot(result):
    weights = np.asarray(result).astype(float)
    y, x = np.indices(weights.shape)
    return (x * weights).sum() / weights.sum(), (y * weights).sum() / weights.sum()


def test_rotation_and_translation_stay_in_their_ranges():
    dot = np.zeros((101, 101), np.uint8)
    dot[49:52, 79:82] = 255
    image = Image.fromarray(dot)
    angles = []
    for i in range(100):
        x, y = _dot(augment.rotate_translate(image, 30, 0, rng(i), fill=0))
        angles.append(np.degrees(np.arctan2(50 - y, x - 50)))
        assert abs(np.hypot(x - 50, y - 50) - 30) < 1
    assert -31 < min(angles) < -26 and 26 < max(angles) < 31
    shifts = np.array([_dot(augment.rotate_translate(image, 0, 0.15, rng(i), fill=0)) for i in range(100)]) - (80, 50)
    assert -15.5 < shifts.min() < -13 and 13 < shifts.max() < 15.5
    assert np.abs(shifts).mean(axis=0).min() > 5


def test_what_rotation_brings_in_has_the_fill_level():
    white = Image.new("RGB", (50, 50), (255, 255, 255))
    turned = np.asarray(augment.rotate_translate(white, 45, 0, rng(4), fill=7))
    corner = turned[0, 0]
    assert (corner == 7).all() and (turned[25, 25] == 255).all()


def test_erasing_has_its_probability_area_and_ratio():
    image = np.zeros((100, 100, 3), np.uint8)
    erased = [augment.erase(image, 0.5, (0.02, 0.4), (0.3, 1 / 0.3), rng(i)) for i in range(400)]
    touched = [e for e in erased if e.any()]
    assert 150 < len(touched) < 250
    areas, ratios = [], []
    for e in touched:
        rows, columns = np.flatnonzero(e.any(axis=(1, 2))), np.flatnonzero(e.any(axis=(0, 2)))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        inside = e[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]
        assert inside.any(axis=2).mean() > 0.99
        areas.append(height * width / 1e4)
        ratios.append(width / height)
    assert 0.015 < min(areas) < 0.06 and 0.34 < max(areas) < 0.42
    assert 0.25 < min(ratios) < 0.5 and 2 < max(ratios) < 3.8
    assert 0.8 < np.exp(np.log(ratios).mean()) < 1.25
    noise = np.concatenate([e[e.any(axis=2)] for e in touched])
    assert abs(noise.mean() - 127.5) < 2 and noise.max() == 255


def test_randaugment_draws_from_all_fourteen_operations():
    assert len(OPERATIONS) == 14
    seen = []
    originals = dict(OPERATIONS)
    try:
        for name in originals:
            OPERATIONS[name] = lambda p, level, sign, fill, name=name: seen.append((name, level, sign)) or p
        for i in range(100):
            augment.rand_augment(Image.fromarray(picture()), 3, 12, rng(i))
    finally:
        OPERATIONS.update(originals)
    assert len(seen) == 300 and {level for _, level, _ in seen} == {0.4}
    assert {name for name, _, _ in seen} == set(originals)
    assert {(n, s) for n, _, s in seen} == {(n, s) for n in originals for s in (1, -1)}


@pytest.mark.parametrize("name", sorted(OPERATIONS))
def test_each_randaugment_operation_grows_with_its_strength(name):
    # A ramp, where a larger shift is a larger difference.
    ramp = np.linspace(0, 127, 40).astype(np.uint8)
    image = Image.fromarray(np.dstack([ramp[None] + ramp[:, None]] * 3) if "translate" in name else picture())
    amounts = [np.abs(np.asarray(OPERATIONS[name](image, level, 1, 128)).astype(int) - np.asarray(image)).mean()
               for level in (0, 0.3, 1)]
    if name == "identity":
        assert amounts == [0, 0, 0]
    elif name in ("autocontrast", "equalize"):
        assert amounts[0] == amounts[1] == amounts[2] > 0
    else:
        assert amounts[0] == 0 < amounts[1] < amounts[2], amounts


def test_randaugment_operations_at_full_strength_are_the_published_ones():
    image = Image.fromarray(picture())

    def full(name, sign=1):
        return np.asarray(OPERATIONS[name](image, 1, sign, 128))

    np.testing.assert_array_equal(full("posterize"), np.asarray(ImageOps.posterize(image, 4)))
    np.testing.assert_array_equal(full("solarize"), 255 - np.asarray(image))
    np.testing.assert_array_equal(full("brightness"), np.asarray(ImageEnhance.Brightness(image).enhance(1.9)))
    np.testing.assert_array_equal(full("color", -1), np.asarray(ImageEnhance.Color(image).enhance(0.1)))
    np.testing.assert_array_equal(full("rotate"), np.asarray(image.rotate(30, Image.Resampling.BILINEAR,
                                                                          fillcolor=(128,) * 3)))
    moved = round(150 / 331 * 40)
    np.testing.assert_array_equal(full("translate_x")[:, :40 - moved], np.asarray(image)[:, moved:])
    np.testing.assert_array_equal(full("translate_y", -1)[moved:], np.asarray(image)[:40 - moved])
    line = np.zeros((101, 101), np.uint8)
    line[:, 50] = 255
    sheared = np.asarray(OPERATIONS["shear_x"](Image.fromarray(line), 1, 1, 0))
    run = sheared[5].argmax() - sheared[95].argmax()
    assert abs(run - 0.3 * 90) <= 2


def test_to_dict_and_back():
    chosen = Augmentation(crop="random", hue=0.1, erasing=0.25, erasing_area=(0.1, 0.2))
    assert chosen.to_dict()["erasing_area"] == [0.1, 0.2]
    assert Augmentation.from_dict(chosen.to_dict()) == chosen
    assert Augmentation.from_dict({}) == Augmentation() == augment.PROCEDURES["gluon"]


@pytest.mark.parametrize(("values", "line"), [
    ({"brightnes": 0.1}, "unknown augmentation setting 'brightnes'; did you mean brightness"),
    ({"crop": "center"}, "no crop 'center'; did you mean centre"),
    ({"hue": 0.6}, "hue out of range; expected a number from 0 to 0.5; found 0.6"),
    ({"randaugment": 1.5}, "randaugment out of range; expected a whole number from 0 to 20; found 1.5"),
    ({"flip": 1}, "flip is true or false; found 1"),
    ({"scale": (0.5, 0.1)}, "scale out of range; expected 0 < lowest <= highest; found"),
    ({"ratio": 0.5}, "ratio is a lowest and a highest value; found 0.5"),
    ({"magnitude": 12}, "magnitude is set and would be ignored; expected randaugment above 0 with it; "
                        "found randaugment 0"),
    ({"crop": "random", "scale": (0.5, 1)}, "scale is set and would be ignored; expected crop resized"),
    ({"erasing": float("nan")}, "erasing out of range"),
])
def test_settings_out_of_range_are_refused(values, line):
    with pytest.raises(ConfigError) as caught:
        Augmentation.from_dict(values)
    assert line in str(caught.value)
