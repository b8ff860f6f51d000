"""Training and evaluation with class names: labels go by name, in whatever way the images come."""
from __future__ import annotations

import unicodedata
from pathlib import Path

import cv2
import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data import lists
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.loader import make_loader
from gluon_ft.data.records import pack
from gluon_ft.errors import DataError
from gluon_ft.symbolic.iterators import LoaderIter
from gluon_ft.training.metrics import evaluate

HOW = gluon_ft.Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), size=8, resize=8)
NAMES = ["a", "m", unicodedata.normalize("NFC", "é")]  # red, green, blue
APART = unicodedata.normalize("NFD", "é")
COLOURS = {"a": (0, 0, 200), "m": (0, 200, 0), NAMES[2]: (200, 0, 0), APART: (200, 0, 0)}  # BGR


def photos(folder: Path, names, count=3) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            image = np.full((8, 8, 3), COLOURS[name], np.uint8)
            image[i, 0] = 255
            cv2.imwrite(str(folder / name / f"{i}.png"), image)
    return folder


def as_list(folder: Path, names) -> Path:
    """A list of its own, whose classes file has its own order."""
    lst = folder.parent / f"{folder.name}.lst"
    files = [(names.index(path.parent.name), f"{path.parent.name}/{path.name}") for path in folder.rglob("*.png")]
    lists.write(lst, [lists.Entry(i, (float(label),), name) for i, (label, name) in enumerate(sorted(files))])
    lists.classes_file(lst.with_suffix("")).write_bytes(lists.classes_to_bytes(names))
    return lst


def as_records(folder: Path, names) -> Path:
    return Path(pack.pack(as_list(folder, names), folder, encoding=".png")[0].rec)


def knowing(names=NAMES):
    """A network that tells red, green and blue apart."""
    net = nn.HybridSequential()
    net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(3, in_units=3))
    net.initialize()
    net[2].weight.set_data(10 * mx.nd.eye(3))
    net.classes = names
    return net


def gluon_loader(folder: Path, names):
    folder_set = mx.gluon.data.vision.ImageFolderDataset(str(folder))
    return mx.gluon.data.DataLoader(folder_set.transform_first(mx.gluon.data.vision.transforms.ToTensor()), 2)


def open_as(kind, folder, names, **options):
    """A loader of a folder whose images it knows by `names`, in that order."""
    shared = {"preprocessing": HOW, "train": False, "batch_size": 2, **options}
    if kind == "folder":
        return make_loader(folder, **shared)
    if kind == "list":
        return make_loader(as_list(folder, names), root=folder, **shared)
    if kind in ("records", "native", "dataset"):
        engine = {"records": "threads"}.get(kind, kind)
        return make_loader(as_records(folder, names), engine=engine, **shared)
    if kind == "DataLoader":
        return gluon_loader(folder, names)
    if kind == "DataIter":
        return LoaderIter(make_loader(folder, **shared))
    data, labels = (np.concatenate(column) for column in zip(*(
        (batch.data.asnumpy(), batch.label.asnumpy()) for batch in make_loader(folder, **shared))))
    loader = ArrayLoader(data, labels, 2)
    loader.classes = names
    return loader


KINDS = ["folder", "list", "records", "native", "dataset", "DataLoader", "DataIter", "arrays"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_that_lacks_a_class_is_evaluated_by_name(tmp_path, kind):
    names = [NAMES[1], NAMES[2]]
    found = evaluate(knowing(), open_as(kind, photos(tmp_path / "val", names), names))
    assert (found.accuracy, found.count) == (1.0, 6)


@pytest.mark.parametrize("kind", ["list", "records", "native", "dataset"])
def test_another_order_of_the_names_is_another_numbering(tmp_path, kind):
    folder = photos(tmp_path / "val", NAMES)
    assert evaluate(knowing(), open_as(kind, folder, NAMES[::-1])).accuracy == 1.0
    expected = open_as(kind, photos(tmp_path / "other", NAMES), NAMES[::-1], classes=NAMES)
    assert expected.classes == NAMES and sorted(expected.labels.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert evaluate(knowing(None), expected).accuracy == 1.0


@pytest.mark.parametrize("names", [["m"], [APART], ["m", APART], ["a", "m", APART]])
def test_one_class_and_another_form_of_a_name(tmp_path, names):
    assert evaluate(knowing(), open_as("folder", photos(tmp_path / "val", names), names)).accuracy == 1.0


def test_an_empty_class_folder_counts_for_nothing(tmp_path):
    folder = photos(tmp_path / "val", [NAMES[2]])
    (folder / NAMES[1]).mkdir()
    found = evaluate(knowing(), open_as("folder", folder, None))
    assert (found.accuracy, found.count) == (1.0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_class_that_the_network_has_not_is_refused(tmp_path, kind):
    names = [NAMES[1], NAMES[2]]
    loader = open_as(kind, photos(tmp_path / "val", names), names)
    with pytest.raises(DataError, match="the evaluation: class 'é' is none of the network's; expected 3 classes: a, m, "
                                        "y; found 2 classes: m, é"):
        evaluate(knowing([*NAMES[:2], "y"]), loader)


@pytest.mark.parametrize("names", [None, ["too", "few"], 3])
def test_without_names_positions_count(tmp_path, names):
    loader = open_as("folder", photos(tmp_path / "val", NAMES), NAMES)
    assert evaluate(knowing(names), loader).accuracy == 1.0
    numbered = make_loader(([np.full((8, 8, 3), COLOURS[name][::-1], np.uint8) for name in NAMES[:2]], [0, 1]),
                           preprocessing=HOW, train=False, batch_size=2)
    assert evaluate(knowing(), numbered).accuracy == 1.0


QUIET = gluon_ft.TrainConfig(epochs=1, lr=1e-9, momentum=0.0, wd=0.0, top_k=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("known", [NAMES, None], ids=["network", "training part"])
def test_validation_goes_by_the_names_of_network_or_training_part(tmp_path, kind, known):
    train = make_loader(photos(tmp_path / "train", NAMES), preprocessing=HOW, train=True, batch_size=3, augment="none")
    names = [NAMES[1], NAMES[2]]
    net, val = knowing(known), open_as(kind, photos(tmp_path / "val", names), names)
    history = gluon_ft.fit(net, train, val, QUIET).history
    assert history[-1]["validation_accuracy"] == history[-1]["train_accuracy"] == 1.0
    assert net.classes == NAMES, "later steps know the names too"


def test_training_images_go_by_the_networks_names_too(tmp_path):
    folder = photos(tmp_path / "train", NAMES)
    train = make_loader(as_list(folder, NAMES[::-1]), root=folder, preprocessing=HOW, train=True, batch_size=3,
                        augment="none")
    assert gluon_ft.fit(knowing(), train, None, QUIET).history[-1]["train_accuracy"] == 1.0
    assert train.epoch == 1, "the loader that was given has made a pass"
    with pytest.raises(DataError, match="the training set: class 'é' is none of the network's"):
        gluon_ft.fit(knowing([*NAMES[:2], "y"]), train, None, QUIET)


def test_cached_features_of_a_part_that_lacks_a_class(tmp_path):
    train = make_loader(photos(tmp_path / "train", NAMES), preprocessing=HOW, train=True, batch_size=3, augment="none")
    names = [NAMES[1], NAMES[2]]
    net, val = nn.HybridSequential(), open_as("folder", photos(tmp_path / "val", names), names)
    net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(3, in_units=3), nn.Dense(3, in_units=3))
    net.initialize()
    for layer in net[2:]:
        layer.weight.set_data(3 * mx.nd.eye(3))
    net[2].collect_params().setattr("grad_req", "null")
    config = gluon_ft.TrainConfig(epochs=1, lr=1e-9, momentum=0.0, wd=0.0, top_k=0, cache_features="memory")
    assert gluon_ft.fit(net, train, val, config).history[-1]["validation_accuracy"] == 1.0


def test_a_new_output_has_no_names_yet():
    net = gluon_ft.fine_tune_net("lenet", 3)
    net.classes = NAMES
    assert gluon_ft.replace_output(net, 3).classes is None


def symbol_of(net):
    net(mx.nd.zeros((1, 3, 8, 8)))
    return symbolic.to_symbol(net, softmax=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_symbolic_path_goes_by_names(tmp_path, kind):
    model, names = symbol_of(knowing()), [NAMES[1], NAMES[2]]
    val = open_as(kind, photos(tmp_path / "val", names), names)
    assert symbolic.evaluate(*model, val, 2, classes=NAMES).accuracy == 1.0
    train = make_loader(photos(tmp_path / "train", NAMES), preprocessing=HOW, train=True, batch_size=3, augment="none")
    result = symbolic.fit(*model, train, val, 3, config=QUIET, speedometer=0)
    assert result.history[-1]["validation_accuracy"] == 1.0 and result.classes == NAMES
    with pytest.raises(DataError, match="class 'é' is none of the symbol's"):
        symbolic.evaluate(*model, val, 2, classes=[*NAMES[:2], "y"])
