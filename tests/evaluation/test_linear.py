"""Linear classifiers on features: chosen without leakage, calibrated, and the same as a Dense layer in the network."""
from __future__ import annotations

import warnings

import mxnet as mx
import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC

import gluon_ft
from gluon_ft.errors import ConfigError, DataError, NetworkError
from gluon_ft.evaluation import linear
from gluon_ft.evaluation.calibration import Calibration, calibrate, log_loss
from gluon_ft.evaluation.features import penultimate
from gluon_ft.evaluation.model import load_model, save_model
from gluon_ft.training.feature_cache import features


def points(classes, each=30, width=12, spread=1.5, seed=0):
    """Clouds around as many centres, far from 0 and with very different scales."""
    random = np.random.RandomState(seed)
    scale = 10.0 ** random.uniform(-3, 3, width)
    centres = random.normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), each)
    return (centres[labels] + spread * random.normal(size=(len(labels), width)) + 5) * scale, labels


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("kind", linear.KINDS)
def test_the_dense_layer_is_the_classifier(classes, kind):
    x, y = points(classes)
    found = linear.fit(x, y, kind, k=3)
    weight, bias = found.dense()
    assert (weight.dtype, weight.shape, bias.shape) == (np.float32, (classes, 12), (classes,))
    expected = found.calibration.scale * found.classifier.decision_function(found.scaler.transform(x))
    expected += found.calibration.offset
    logits = x @ weight.T.astype("float64") + bias
    if classes == 2:
        np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-5 * np.abs(expected).max())
    else:
        np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())
        assert found.calibration.offset == 0
        np.testing.assert_array_equal(found.logits(x).argmax(1), found.classifier.predict(found.scaler.transform(x)))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities(x), probabilities, atol=1e-5)


def test_binary_probabilities_are_platts():
    x, y = points(2, each=200, spread=3)
    found = linear.fit(x, y, "svm", k=5)
    f = found.classifier.decision_function(found.scaler.transform(x))
    sigmoid = 1 / (1 + np.exp(-(found.calibration.scale * f + found.calibration.offset)))
    np.testing.assert_allclose(found.probabilities(x)[:, 1], sigmoid, atol=1e-12)


@pytest.mark.parametrize("classes", [2, 3])
def test_calibration_finds_the_scale_that_made_the_labels(classes):
    random = np.random.RandomState(3)
    logits = random.normal(size=(20000, classes)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([random.choice(classes, p=row) for row in chances])
    decisions = (logits[:, 1] - logits[:, 0] + 0.7) / 5 if classes == 2 else logits / 5
    found = calibrate(decisions, labels)
    assert found.scale == pytest.approx(5, rel=0.05)
    assert found.offset == pytest.approx(-0.7 if classes == 2 else 0, abs=0.08)


@pytest.mark.parametrize("classes", [2, 3])
def test_one_wild_decision_value_settles_nothing(classes):
    random = np.random.RandomState(0)
    labels = np.arange(60) % classes
    decisions = 2 * np.eye(classes)[labels] + random.normal(scale=0.5, size=(60, classes))
    decisions = decisions[:, 1] - decisions[:, 0] if classes == 2 else decisions
    usual = calibrate(decisions, labels)
    for wild in (-1e4, 1e4):
        decisions[0] = wild if classes == 2 else [wild, 0, 0]
        found = calibrate(decisions, labels)
        assert 0.25 * usual.scale < found.scale < 4 * usual.scale and abs(found.offset) < 1


@pytest.mark.parametrize("kind", linear.KINDS)
def test_a_constant_with_rounding_is_constant(kind):
    """Converted networks carry a bias as such a feature: scaled by itself its rounding outweighs all others."""
    x, y = points(2, each=40, spread=0.5)
    x[:, 3] = 1 + np.where(np.arange(80) == 5, 2e-7, 0)
    train = np.arange(80) != 5
    found = linear.fit(x[train], y[train], kind, k=4)
    assert abs(found.logits(x[~train])[0, 1]) < 100
    x[:, 3] += 1e-7 * np.random.RandomState(0).normal(size=80)
    found = linear.fit(x, y, kind, k=4)
    assert np.abs(found.dense()[0][:, 3]).max() < 10
    assert (found.logits(x).argmax(1) == y).mean() > 0.95


@pytest.mark.parametrize("classes", [2, 3])
def test_no_certainty_from_few_images(classes):
    labels = np.repeat(np.arange(classes), 5)
    decisions = 8.0 * labels - 4 if classes == 2 else 4.0 * np.eye(3)[labels]
    found = calibrate(decisions, labels)
    values = found.scale * decisions + found.offset
    if classes == 2:
        assert 1 / (1 + np.exp(-values.max())) == pytest.approx(6 / 7, abs=1e-3)
    else:
        shares = np.exp(values) / np.exp(values).sum(1, keepdims=True)
        assert shares.max() == pytest.approx(6 / 7, abs=1e-3)


def test_calibrated_probabilities_are_honest():
    x, y = points(2, each=400, width=6, spread=4)
    test_x, test_y = points(2, each=4000, width=6, spread=4, seed=0)
    found = linear.fit(x, y, "svm", k=5)
    p = found.probabilities(test_x)[:, 1]
    for low in (0.1, 0.3, 0.5, 0.7):
        chosen = (p >= low) & (p < low + 0.2)
        assert test_y[chosen].mean() == pytest.approx(p[chosen].mean(), abs=0.06)
    raw = linear.Linear(found.kind, found.classifier, found.scaler, Calibration(), found.C)
    assert log_loss(found.probabilities(test_x), test_y) < log_loss(raw.probabilities(test_x), test_y)


def test_standardisation_and_c_come_from_the_folds_alone():
    """Pure noise: with the scaler or the choice of C leaking, the folds' accuracy would be above chance."""
    random = np.random.RandomState(0)
    x, y = random.normal(size=(120, 300)), np.repeat([0, 1], 60)
    found = linear.fit(x, y, "svm", k=5)
    assert [score["C"] for score in found.scores] == sorted(linear.GRID)
    assert all(abs(score["mean"] - 0.5) < 0.15 for score in found.scores)
    best = max(score["mean"] for score in found.scores)
    assert min(score["C"] for score in found.scores if score["mean"] == best) == found.C
    np.testing.assert_allclose(found.scaler.mean_, x.mean(0))


def test_copies_of_an_image_stay_in_one_fold():
    """Each image twice, labels at random: only folds that part the copies can score."""
    random = np.random.RandomState(0)
    x, y = np.repeat(random.normal(size=(40, 80)), 2, axis=0), np.repeat(random.randint(0, 2, 40), 2)
    together = max(s["mean"] for s in linear.fit(x, y, "svm", 4, groups=np.repeat(np.arange(40), 2)).scores)
    apart = max(s["mean"] for s in linear.fit(x, y, "svm", 4).scores)
    assert apart > 0.85 and together < 0.75


def test_as_dense_of_plain_classifiers():
    x, y = points(3)
    scaler = StandardScaler().fit(x)
    warnings.simplefilter("ignore", ConvergenceWarning)  # thirty steps are enough to have a classifier
    for chosen in (None, scaler, StandardScaler(with_mean=False).fit(x), StandardScaler(with_std=False).fit(x)):
        given = x if chosen is None else chosen.transform(x)
        classifier = LogisticRegression(max_iter=30).fit(given, y)
        weight, bias = linear.as_dense(classifier, chosen)
        expected = classifier.decision_function(given)
        np.testing.assert_allclose(x @ weight.T.astype("float64") + bias, expected, atol=1e-5 * np.abs(expected).max())
    two = LinearSVC(fit_intercept=False).fit(scaler.transform(x[y > 0]), y[y > 0])
    with pytest.raises(ConfigError, match="classes are not the network's; expected 0 to 1; found 1, 2"):
        linear.as_dense(two, scaler)
    with pytest.raises(ConfigError, match="SVC is not a linear classifier that was fitted; expected coef_"):
        linear.as_dense(SVC().fit(scaler.transform(x), y))


@pytest.mark.parametrize("name", ["lenet", "cifar_resnet20_relu", *(
    pytest.param(name, marks=pytest.mark.slow) for name in ("squeezenet1.1", "mobilenetv2_0.25"))])
def test_a_network_with_that_output_is_the_classifier(tmp_path, name):
    net = gluon_ft.fine_tune_net(name, 7)
    entry = gluon_ft.backbones.get(name)
    count = 12 if entry.input_size < 64 else 6
    random = np.random.RandomState(0)
    loader = gluon_ft.ArrayLoader(random.normal(size=(count, *gluon_ft.backbones.input_shape(name)[1:])),
                                  np.arange(count) % 2, 4)
    x, y = features.extract(net, loader)
    found = linear.fit(x, y, "svm", k=2, grid=(0.1,))
    linear.set_output(net, *found.dense(), ["even", "odd"])
    expected, data = found.logits(x), mx.nd.array(loader.data)
    np.testing.assert_allclose(net(data).asnumpy(), expected, atol=1e-5 * max(1, np.abs(expected).max()))
    np.testing.assert_allclose(mx.nd.softmax(net(data)).asnumpy(), found.probabilities(x), atol=1e-5)

    how = gluon_ft.Preprocessing(mean=entry.mean, std=entry.std, size=entry.input_size, resize=None,
                                 channel_order="gray" if entry.channels == 1 else "rgb")
    again = load_model(save_model(net, tmp_path / "m.params", preprocessing=how))
    assert again.classes == ["even", "odd"]
    np.testing.assert_array_equal(again(data).asnumpy(), net(data).asnumpy())
    again.export(str(tmp_path / "exported"))
    exported = mx.gluon.SymbolBlock.imports(str(tmp_path / "exported-symbol.json"), ["data"],
                                            str(tmp_path / "exported-0000.params"))
    np.testing.assert_allclose(exported(data).asnumpy(), expected, atol=1e-5 * max(1, np.abs(expected).max()))


def test_weights_that_do_not_fit():
    net = gluon_ft.fine_tune_net("lenet", 7)
    with pytest.raises(NetworkError, match=r"the weights do not fit the output; expected weight \(k, 500\), bias "
                                           r"\(k,\); found \(2, 499\), \(2,\)"):
        linear.set_output(net, np.zeros((2, 499)), np.zeros(2))


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"kind": "svn"}, ConfigError, "no classifier 'svn'; did you mean svm"),
    ({"k": 31}, ConfigError, "more folds than the smallest class has images: 31; expected at most 30"),
    ({"k": 1}, ConfigError, "number of folds out of range"),
    ({"labels": np.repeat([0, 2], 30)}, DataError, "classes without a training image; .*; found labels 0, 2"),
    ({"labels": np.zeros(60, int)}, DataError, "classes without a training image"),
    ({"labels": np.zeros(59, int)}, DataError, "features and labels do not fit"),
])
def test_bad_input(change, error, message):
    x, y = points(2)
    with pytest.raises(error, match=message):
        linear.fit(**{"features": x, "labels": y, **change})


def test_features_that_are_not_finite():
    x, y = points(2)
    x[17, 3] = np.nan
    with pytest.raises(DataError, match="features that are not finite; found those of image 17"):
        linear.fit(x, y)


def test_features_are_computed_once(monkeypatch):
    net = gluon_ft.fine_tune_net("lenet", 2)
    images = np.random.RandomState(0).normal(size=(10, 1, 28, 28)).astype("float32")
    loader = gluon_ft.ArrayLoader(images, np.arange(10) % 2, 4)
    calls, extract = [], features.extract

    def counted(*arguments):
        calls.append(1)
        return extract(*arguments)

    monkeypatch.setattr(features, "extract", counted)
    first, labels = penultimate(net, loader)
    assert first.shape == (10, 500) and labels.tolist() == [0, 1] * 5
    np.testing.assert_array_equal(first, extract(net, loader)[0])
    np.testing.assert_array_equal(penultimate(net, loader)[0], first)
    assert len(calls) == 1
    # Another output leaves the features as they are, other weights or images do not.
    gluon_ft.replace_output(net, 3)
    penultimate(net, loader)
    assert len(calls) == 1
    net.features[0].weight.set_data(net.features[0].weight.data() * 2)
    penultimate(net, loader)
    images[3] += 1
    penultimate(net, gluon_ft.ArrayLoader(images, np.arange(10) % 2, 4))
    assert len(calls) == 3
