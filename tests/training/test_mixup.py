"""Mixup and cutmix, and the loss for two labels: what is mixed is what the share says, pixel by pixel."""
from __future__ import annotations

import random

import mxnet as mx
import numpy as np
import pytest

from gluon_ft.errors import ConfigError
from gluon_ft.training.losses import Mixer, box, classification_loss, cross_entropy


def images(n=6, size=(12, 16)):
    """Each image is filled with its own number, which is its label too."""
    data = np.arange(n, dtype="float32")[:, None, None, None] * np.ones((1, 3, *size), "float32")
    return mx.nd.array(data), mx.nd.array(np.arange(n), dtype="int32")


def test_cutmix_labels_match_areas_pixel_by_pixel():
    shares = []
    for step in range(60):
        data, label = images()
        mixed, a, b, share = Mixer(0, 1, 6, seed=3).mix(data, label, 2, step)
        pixels = mixed.asnumpy()
        for image, own, other in zip(pixels, a.asnumpy(), b.asnumpy()):
            assert set(np.unique(image)) <= {float(own), float(other)}
            if own != other:
                assert (image == own).mean() == pytest.approx(share, abs=1e-7)
            np.testing.assert_array_equal(image[0], image[2])
        np.testing.assert_array_equal(a.asnumpy(), label.asnumpy())
        np.testing.assert_array_equal(data.asnumpy(), images()[0].asnumpy(), "the loader's own batch is left alone")
        shares.append(share)
    # Beta(1, 1) is even over 0..1, with cuts at the border on top.
    assert min(shares) < 0.3
    assert max(shares) > 0.9
    assert len(set(shares)) > 30


def test_cutmix_takes_the_same_part_of_the_other_image():
    data = mx.nd.random.uniform(shape=(4, 3, 10, 8))
    mixed, _, b, share = Mixer(0, 1, 4, seed=1).mix(data, mx.nd.arange(4), 0, 5)
    old, new, order = data.asnumpy(), mixed.asnumpy(), b.asnumpy().astype(int)
    assert 0 < share < 1
    changed = (new != old).any(axis=(0, 1))
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    inside = np.zeros((10, 8), bool)
    inside[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1] = True
    np.testing.assert_array_equal(new, np.where(inside, old[order], old))
    assert 1 - inside.mean() == pytest.approx(share)


def test_box_has_the_area_that_was_drawn_where_the_border_does_not_cut_it():
    rng = np.random.RandomState(0)
    areas = []
    for _ in range(200):
        top, bottom, left, right = box(0.75, 100, 60, rng)
        assert 0 <= top <= bottom <= 100
        assert 0 <= left <= right <= 60
        areas.append((bottom - top) * (right - left) / 6000)
    assert max(areas) == 0.25
    top, bottom, left, right = box(1.0, 8, 8, rng)
    assert (bottom - top) * (right - left) == 0


@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (5, 7)])
def test_mixup_is_the_weighted_sum(shape):
    data = mx.nd.random.uniform(shape=shape)
    mixed, a, b, share = Mixer(0.4, 0, 5, seed=0).mix(data, mx.nd.arange(5), 1, 2)
    order = b.asnumpy().astype(int)
    np.testing.assert_array_equal(a.asnumpy(), np.arange(5))
    assert sorted(order) == list(range(5))
    np.testing.assert_allclose(mixed.asnumpy(), share * data.asnumpy() + (1 - share) * data.asnumpy()[order], rtol=1e-6)


def test_shares_of_mixup_follow_its_beta_distribution():
    shares = [Mixer(0.2, 0, 6, seed=0).mix(*images(size=(2, 2)), 0, step)[3] for step in range(500)]
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)
    # The variance of Beta(a, a) is 1 / (4 (2 a + 1)).
    assert np.var(shares) == pytest.approx(1 / (4 * 1.4), rel=0.1)


def test_both_given_are_drawn_at_even_odds():
    kinds = []
    for step in range(200):
        mixed, *_ = Mixer(1, 1, 6, seed=0).mix(*images(), 0, step)
        kinds.append(np.array_equal(mixed.asnumpy(), np.round(mixed.asnumpy())))
    assert 70 < sum(kinds) < 130


def test_depends_on_seed_epoch_and_step_only():
    def drawn(seed, epoch, step):
        mixed, _, b, share = Mixer(0.3, 1, 6, seed=seed).mix(*images(), epoch, step)
        return mixed.asnumpy().tobytes(), b.asnumpy().tobytes(), share

    first = drawn(1, 2, 3)
    np.random.rand(7), random.random(), mx.nd.random.uniform(shape=3).wait_to_read()
    states = random.getstate(), np.random.get_state()[1].copy()
    assert drawn(1, 2, 3) == first
    assert len({first, drawn(2, 2, 3), drawn(1, 3, 3), drawn(1, 2, 4)}) == 4
    assert random.getstate() == states[0]
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    mx.random.seed(5)
    expected = mx.nd.random.uniform(shape=4).asnumpy()
    mx.random.seed(5)
    drawn(1, 2, 3)
    np.testing.assert_array_equal(mx.nd.random.uniform(shape=4).asnumpy(), expected)


def test_without_a_seed_each_mixer_has_its_own():
    one, two = Mixer(1, 0, 6, seed=None), Mixer(1, 0, 6, seed=None)
    assert one.seed != two.seed
    again = Mixer(1, 0, 6, seed=one.seed)
    assert one.mix(*images(), 0, 0)[3] == again.mix(*images(), 0, 0)[3]


def test_nothing_asked_for_nothing_done():
    data, label = images()
    assert not Mixer(0, 0, 6).active
    assert Mixer(0, 0, 6).mix(data, label, 0, 0) == (data, label, label, 1.0)


@pytest.mark.parametrize(("arguments", "wording"), [
    ((-1, 0, 2), "mixup out of range; expected a number from 0; found -1"),
    ((0, float("nan"), 2), "cutmix out of range"), ((1, 0, 1), "mixing needs two classes"),
    ((1, 0, 2, -3), "seed out of range"),
])
def test_out_of_range(arguments, wording):
    with pytest.raises(ConfigError, match=wording):
        Mixer(*arguments)


def test_cutmix_of_features_is_refused():
    with pytest.raises(ConfigError, match=r"cutmix needs images; .* found data of shape \(5, 7\); use mixup"):
        Mixer(0.2, 1, 5).mix(mx.nd.zeros((5, 7)), mx.nd.arange(5), 0, 0)


def predictions(n=6, classes=4):
    return mx.nd.random.normal(shape=(n, classes)) * 3, mx.nd.array(np.arange(n) % classes, dtype="int32")


def loss_and_gradient(loss_of, prediction, *rest, **named):
    prediction = prediction.copy()
    prediction.attach_grad()
    with mx.autograd.record():
        loss = loss_of(prediction, *rest, **named)
    loss.backward()
    return loss.asnumpy(), prediction.grad.asnumpy()


def expected_loss(prediction, label, smoothing):
    """(n,): cross-entropy against smoothed labels, in NumPy and float64."""
    p = prediction.asnumpy().astype("float64")
    log_p = p - np.log(np.exp(p).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(p.shape[1])[np.asarray(label)] + smoothing / p.shape[1]
    return -(target * log_p).sum(1)


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_plain_loss_is_cross_entropy_bit_for_bit(smoothing, hybrid):
    prediction, label = predictions()
    ours = classification_loss(smoothing)
    if hybrid:
        ours.hybridize()
    for got, wanted in zip(loss_and_gradient(ours, prediction, label),
                           loss_and_gradient(cross_entropy(smoothing), prediction, label)):
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize("hybrid", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_of_mixed_labels_with_weights(smoothing, hybrid):
    prediction, label = predictions()
    other = mx.nd.array([3, 3, 0, 1, 2, 2], dtype="int32")
    weights, sample = np.array([0.5, 2, 1, 0], "float32"), mx.nd.array([1, 1, 0, 1, 0.5, 1])
    ours = classification_loss(smoothing, weights)
    if hybrid:
        ours.hybridize()
    a, b = label.asnumpy(), other.asnumpy()
    first = weights[a] * expected_loss(prediction, a, smoothing)
    second = weights[b] * expected_loss(prediction, b, smoothing)
    for share in (0.3, 1.0, 0.8):
        for given in (share, mx.nd.array([share])):
            got = ours(prediction, label, sample, label_b=other, share=given).asnumpy()
            np.testing.assert_allclose(got, sample.asnumpy() * (share * first + (1 - share) * second), rtol=1e-4)
    plain = classification_loss(smoothing, weights)
    np.testing.assert_allclose(plain(prediction, label).asnumpy(), first, rtol=1e-4)
    np.testing.assert_allclose(plain(prediction, label, sample).asnumpy(), sample.asnumpy() * first, rtol=1e-4)


def test_gradient_of_mixed_labels_is_the_mixed_gradient():
    prediction, label = predictions()
    other = mx.nd.array([3, 3, 0, 1, 2, 2], dtype="int32")
    mixed = loss_and_gradient(classification_loss(), prediction, label, label_b=other, share=0.3)[1]
    one, two = (loss_and_gradient(cross_entropy(), prediction, y)[1] for y in (label, other))
    np.testing.assert_allclose(mixed, 0.3 * one + 0.7 * two, rtol=1e-4, atol=1e-6)


def test_loss_runs_on_several_contexts():
    loss_of = classification_loss(0.1, [1, 2, 3, 4])
    prediction, label = predictions()
    values = [loss_of(prediction.as_in_context(ctx), label.as_in_context(ctx)) for ctx in (mx.cpu(0), mx.cpu(1))]
    assert [v.context for v in values] == [mx.cpu(0), mx.cpu(1)]
    np.testing.assert_array_equal(*(v.asnumpy() for v in values))


@pytest.mark.parametrize("weights", [[1, -1], [1, float("inf")], [[1, 2]]])
def test_weights_that_are_none(weights):
    with pytest.raises(ConfigError, match="class weights are one number a class; expected finite, from 0"):
        classification_loss(0.0, weights)
