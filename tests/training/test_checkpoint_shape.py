"""A checkpoint that somebody else wrote or changed: what does not fit is one line before anything is trained."""
from __future__ import annotations

import copy

import numpy as np
import pytest
from resume_nets import network, sets

from gluon_ft.errors import CheckpointError
from gluon_ft.training import checkpoint
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.fit import fit

CONFIG = TrainConfig(epochs=2, ema=0.5, save_every=1, keep=9)
MISSING = object()


@pytest.fixture(scope="module")
def middle(tmp_path_factory):
    """A checkpoint in the middle of the second epoch."""
    folder = tmp_path_factory.mktemp("middle")
    fit(network(), *sets(count=12), CONFIG, save_to=folder)
    bundle = checkpoint.read(folder / "checkpoints" / "epoch-0002-batch-000002.ckpt")
    assert bundle.values["meter"] == [8, 2] and bundle.values["history"]
    return bundle


def resumed(folder, values, arrays):
    checkpoint.write(folder / "checkpoints" / "epoch-0002-batch-000002.ckpt", checkpoint.Bundle(values, arrays))
    return fit(network(), *sets(count=12), CONFIG, save_to=folder, resume=True)


@pytest.mark.parametrize(("place", "value", "message"), [
    *((name, MISSING, f"{name} is missing") for name in (
        "identity", "epoch", "batches", "in_epoch", "seconds", "history", "stopped", "patience", "first_pass",
        "label_counts", "meter", "scaler", "updates")),
    ("epoch", "2", "epoch does not fit"), ("epoch", 3, r"history does not fit \(expected the epochs before 3"),
    ("batches", -1, "batches does not fit"), ("batches", 0, "meter does not fit"),
    ("meter", None, "meter does not fit"),
    ("meter", [0, 0], r"meter\[0\] does not fit"), ("seconds", None, "seconds does not fit"),
    ("history.0.train_accuracy", "high", r"history\[0\].train_accuracy does not fit"),
    ("history.0.epoch", 7, "history does not fit"), ("patience.waited", 1.5, "patience.waited does not fit"),
    ("label_counts", [1], "counts of 1 classes, and 3 in the network"),
    ("updates", {"0.weight": -1}, "updates.0.weight"),
    ("scaler", {"scale": 1}, "scaler.every is missing"), ("identity.config", [], "identity.config does not fit"),
    ("identity.config.epochs", "2", "cannot go on with another config: epochs"),
    ("stopped", 5, "stopped does not fit"),
    ("updates", {}, "the optimiser's state is another network's"),
])
def test_values_that_do_not_fit(tmp_path, middle, place, value, message):
    values = copy.deepcopy(middle.values)
    *way, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    holder = values
    for key in way:
        holder = holder[key]
    if value is MISSING:
        del holder[last]
    else:
        holder[last] = value
    with pytest.raises(CheckpointError, match=message) as error:
        resumed(tmp_path, values, middle.arrays)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "array", "message"), [
    ("parameter/0.weight", None, "another network's; expected 0.weight"),
    ("parameter/1.gamma@1", np.zeros(9, "float32"), "another network's; expected 1.gamma@1 of shape"),
    ("parameter/x@1", np.zeros(9, "float32"), "another network's; found x@1 in it"),
    ("parameter/0.weight", np.zeros((4, 1, 3, 3), "uint16"), "array parameter/0.weight does not fit"),
    ("parameter/0.weight", np.zeros((0, 3), "float32"), "array parameter/0.weight does not fit"),
    ("meter/0/0", None, "meter does not fit"), ("meter/x/0", np.zeros(1, "float32"), "meter does not fit"),
    ("meter/3/0", np.zeros(1, "float32"), "meter does not fit"),
    ("meter/0/1", np.zeros(2, "float32"), "meter does not"),
    ("average/#updates", np.array([np.nan]), "average does not fit"),
    ("average/#updates", None, "no number of updates"),
    ("optimizer/0.weight", None, "the optimiser's state of '0.weight' does not fit"),
])
def test_arrays_that_do_not_fit(tmp_path, middle, name, array, message):
    arrays = {key: value for key, value in middle.arrays.items() if key != name}
    if array is not None:
        arrays[name] = array
    with pytest.raises(CheckpointError, match=message):
        resumed(tmp_path, middle.values, arrays)


def test_what_fits_is_gone_on_from(tmp_path, middle):
    assert len(resumed(tmp_path, middle.values, middle.arrays).history) == 2
