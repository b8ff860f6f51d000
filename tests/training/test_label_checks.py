"""One check of labels: whole numbers of the network's classes, one an image; in training and evaluation, both paths."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data.batches import ArrayLoader, Batch
from gluon_ft.errors import NetworkError, UserError
from gluon_ft.evaluation import linear
from gluon_ft.training import lr_finder
from gluon_ft.training.feature_cache import features
from gluon_ft.training.metrics import evaluate

IMAGES = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)  # of classes 0 0 1 1 2 2
QUIET = gluon_ft.TrainConfig(epochs=1, lr=1e-9, momentum=0.0, wd=0.0, top_k=0, allow_empty_classes=True)


def knowing():
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=3))
    net.initialize()
    net[0].weight.set_data(10 * mx.nd.eye(3))
    return net


def model():
    net = knowing()
    net(mx.nd.zeros((1, 3)))
    return symbolic.to_symbol(net, softmax=True)


GOOD = [(IMAGES, [0, 0, 1, 1, 2, 2])]
PATHS = {
    "evaluate": lambda batches: evaluate(knowing(), batches).accuracy,
    "fit": lambda batches: gluon_ft.fit(knowing(), batches, None, QUIET).history[-1]["train_accuracy"],
    "validation": lambda batches: gluon_ft.fit(knowing(), GOOD, batches, QUIET).history[-1]["validation_accuracy"],
    "symbolic evaluate": lambda batches: symbolic.evaluate(*model(), batches, 6).accuracy,
    "symbolic fit": lambda batches: symbolic.fit(*model(), batches, None, 6, config=QUIET,
                                                 speedometer=0).history[-1]["train_accuracy"],
    "symbolic validation": lambda batches: symbolic.fit(*model(), GOOD, batches, 6, config=QUIET,
                                                        speedometer=0).history[-1]["validation_accuracy"],
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("labels", [
    np.array([0, 0, 1, 1, 2, 0]), np.array([0, 0, 1, 1, 2, 0.0]), np.array([[0], [0], [1], [1], [2], [0]]),
    mx.nd.array([[0], [0], [1], [1], [2], [0]]), [0, 0, 1, 1, 2, 0]], ids=["int", "float", "(n, 1)", "NDArray", "list"])
def test_one_number_an_image_is_counted_right(path, labels):
    assert PATHS[path]([(IMAGES, labels)]) == pytest.approx(5 / 6)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("as_what", [np.array, lambda labels: mx.nd.array(labels, dtype=bool)],
                         ids=["array", "NDArray"])
def test_true_and_false_are_classes_1_and_0(path, as_what):
    labels = as_what([False, False, True, True, True, False])
    assert PATHS[path]([(IMAGES, labels)]) == pytest.approx(4 / 6)


OUTSIDE = "1 labels outside the network's output in .*; expected 0 to 2; found "
WRONG = {
    "one-hot": (np.eye(3)[[0, 0, 1, 1, 2, 2]], r"not one label an image; .*\(n,\) or \(n, 1\); found \(6, 3\); of "),
    "two": (np.zeros((6, 2)), r"not one label an image; .*found \(6, 2\)"),
    "cube": (np.zeros((6, 1, 1)), r"not one label an image; .*found \(6, 1, 1\)"),
    "fewer": (np.zeros(5), "images and labels of a batch differ in number; expected 6 labels; found 5"),
    "above": (np.array([0, 0, 1, 1, 2, 3]), f"{OUTSIDE}3; .*"),
    "far above": (np.array([3, 3, 4, 4, 5, 5]), "6 labels outside the network's output"),
    "below": (np.array([0, 0, 1, 1, 2, -1]), f"{OUTSIDE}-1; correct the labels"),
    "not a number": (np.array([0, 0, 1, 1, 2, np.nan]), f"{OUTSIDE}nan; correct the labels"),
    "infinite": (np.array([0, 0, 1, 1, 2, np.inf]), f"{OUTSIDE}inf; correct the labels"),
    "fraction": (np.array([0, 0, 1, 1, 2, 0.5]), f"{OUTSIDE}0.5; correct the labels"),
    "names": (np.array(list("aabbcc")), "expected arrays of numbers; found <U1"),
    "none": (None, "expected arrays of numbers; found object"),
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", WRONG)
def test_other_labels_are_refused_in_words(path, kind):
    labels, wording = WRONG[kind]
    with pytest.raises(UserError, match=wording):
        PATHS[path]([(IMAGES, labels)])


@pytest.mark.parametrize("item, wording", [
    (mx.nd.array(IMAGES), "something else than a batch: images alone; expected "),
    ((mx.nd.array(IMAGES),), "something else than a batch; .*found tuple of length 1"),
    (mx.io.DataBatch([mx.nd.array(IMAGES)]), "a batch: not one label an image; expected one array of labels; found no"),
    (mx.io.DataBatch([mx.nd.array(IMAGES)], [mx.nd.zeros(6), mx.nd.zeros(6)]), "expected one array of labels; found 2"),
    ((IMAGES, np.zeros(6), 7), "a batch with more images than rows; expected 0 to 6 valid rows; found 7"),
    ((IMAGES, np.zeros(6), np.zeros(6)), "third part of a batch is no number; .*found ndarray; let the loader yield"),
    ((IMAGES, np.zeros(6), mx.nd.zeros(6)), "third part of a batch is no number; .*found NDArray"),
    ((IMAGES, np.zeros(6), "name"), "third part of a batch is no number; .*found str"),
    ((IMAGES[:0], np.zeros(0)), "a batch without images; expected at least one"),
    (Batch(mx.nd.array(IMAGES), mx.nd.zeros((6, 3)), 6), r"not one label an image; .*found \(6, 3\)"),
])
@pytest.mark.parametrize("path", ["evaluate", "symbolic validation"])
def test_batches_that_are_none(path, item, wording):
    with pytest.raises(UserError, match=wording):
        PATHS[path]([item])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_labels_of_an_iterator_of_mxnet(path, shape):
    labels = np.array([0, 0, 1, 1, 2, 0], dtype=np.float32).reshape(shape)
    assert PATHS[path](mx.io.NDArrayIter(IMAGES, labels, 4, label_name="softmax_label")) == pytest.approx(5 / 6)
    with pytest.raises(UserError, match=r"labels outside the network's output in .*found 3"):
        PATHS[path](mx.io.NDArrayIter(IMAGES, labels + 1, 4))


@pytest.mark.parametrize("kind", ["one-hot", "two", "not a number", "fraction"])
def test_arrays_in_memory_are_checked_at_once(kind):
    with pytest.raises(UserError, match=r"the arrays: (not one label an image|1 labels are not class numbers)"):
        ArrayLoader(IMAGES, WRONG[kind][0], 2)
    assert ArrayLoader(IMAGES, np.zeros((6, 1)), 2).labels.shape == (6,)


class OfAnySize(nn.HybridSequential):
    """Its output layer is not found: how many classes there are shows in the first result."""

    def hybrid_forward(self, F, x):
        return F.concat(x[:, :1], x[:, 1:], dim=1)


def test_a_network_whose_output_is_not_found():
    net = OfAnySize()
    net.initialize()
    assert evaluate(net, GOOD, [mx.cpu()]).accuracy == 1.0
    for labels in ([0, 0, 1, 1, 2, 3], [0, 0, 1, 1, 2, -1], [0, 0, 1, 1, 2, 0.5]):
        with pytest.raises(UserError, match="1 labels outside the network's output in the evaluation, batch 1; expect"):
            evaluate(net, [(IMAGES, labels)], [mx.cpu()])


def test_a_result_that_is_no_row_of_classes():
    net = nn.HybridLambda(lambda F, x: x.mean(axis=0, keepdims=True))
    with pytest.raises(NetworkError, match=r"not one row of classes an image in the evaluation; .*\(6, classes\)"):
        evaluate(net, GOOD, [mx.cpu()])


def test_features_and_what_is_fitted_on_them():
    net = nn.HybridSequential()
    net.add(nn.Dense(3, in_units=3), nn.Dense(3, in_units=3))
    net.initialize()
    assert features.extract(net, [(IMAGES, np.zeros((6, 1)))])[1].shape == (6,)
    for kind in ("not a number", "fraction", "one-hot"):
        with pytest.raises(UserError, match=r"not one label an image|labels are not class numbers"):
            features.extract(net, [(IMAGES, WRONG[kind][0])])
        with pytest.raises(UserError, match=r"not one label an image|labels are not class numbers"):
            linear.fit(IMAGES, WRONG[kind][0])


def test_the_learning_rate_finder_checks_too():
    with pytest.raises(UserError, match=r"not one label an image; .*found \(6, 3\)"):
        lr_finder.find_lr(knowing(), [(IMAGES, WRONG["one-hot"][0])], QUIET, steps=20)
