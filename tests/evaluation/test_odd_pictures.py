"""Every kind of picture in one folder: prediction, audit and packing refuse the same files, and use all the others."""
from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import mxnet as mx
import odd_pictures
import pytest
from PIL import Image

import gluon_ft
from gluon_ft.data.audit.checks import audit
from gluon_ft.data.images import decode
from gluon_ft.data.images.header import Unreadable
from gluon_ft.data.loader import make_loader
from gluon_ft.data.records.pack import pack
from gluon_ft.evaluation.predict import predict

HOW = gluon_ft.Preprocessing(size=32, resize=36)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures named by number, all with the suffix of a JPEG, and huge ones that a header gives away."""
    root = tmp_path_factory.mktemp("odd") / "pictures"
    root.mkdir()
    bombs = [make() for name, make in odd_pictures.BOMBS.items() if "81" not in name and "80" not in name]
    for number, data in enumerate([*odd_pictures.pictures().values(), *bombs]):
        (root / f"{number:03d}.jpg").write_bytes(data)
    return root


@pytest.fixture(scope="module")
def refused(folder):
    found = set()
    for path in folder.iterdir():
        try:
            decode.decode_rgb(path.read_bytes())
        except Unreadable:
            found.add(path.name)
    assert 10 < len(found) < 30
    return found


@pytest.fixture(scope="module")
def usable(folder, refused, tmp_path_factory):
    """A list of all of them, in two classes."""
    path = tmp_path_factory.mktemp("lists") / "x.lst"
    path.write_text("".join(f"{i}\t{i % 2}\t{p.name}\n" for i, p in enumerate(sorted(folder.iterdir()))))
    return path


def test_prediction(folder, refused):
    mx.random.seed(1)
    net = gluon_ft.fine_tune_net("cifar_resnet20_relu", 3)
    net.classes, net.preprocessing = ["a", "b", "c"], HOW
    net(mx.nd.zeros((1, 3, 32, 32)))
    found = predict(net, folder, workers=2)
    assert len(found) == len(list(folder.iterdir()))
    assert {p.path.rsplit("/", 1)[1] for p in found if p.error} == refused
    assert all(p.probability is not None and 0 < p.probability <= 1 for p in found if not p.error)


def test_audit(folder, refused, usable):
    report = audit([usable], root=folder)
    assert {finding.item.name for finding in report.findings["unreadable"]} == refused


def test_packing_and_training(folder, refused, usable, tmp_path):
    (packed,) = pack(usable, folder, tmp_path / "x", resize=36, center_crop=True, on_error="skip")
    assert {skipped.path for skipped in packed.skipped} == refused
    kept = [line for line in usable.read_text().splitlines(keepends=True) if line.split("\t")[2].strip() not in refused]
    (tmp_path / "kept.lst").write_text("".join(kept))
    for augment in ("gluon", "im2rec"):
        loader = make_loader(tmp_path / "kept.lst", root=folder, preprocessing=HOW, train=True, batch_size=16,
                             augment=augment, workers=2)
        assert sum(batch.valid for batch in loader) == len(kept)


def test_limits_in_threads_leave_pillow_and_pythons_warnings_as_they_are(folder):
    limit, filters, seen, done = Image.MAX_IMAGE_PIXELS, list(warnings.filters), set(), threading.Event()
    bombs = [path.read_bytes() for path in sorted(folder.iterdir())[-9:]] * 20

    def watch():
        while not done.wait(0.001):
            seen.add(Image.MAX_IMAGE_PIXELS)

    def refuses(data):
        try:
            decode.decode_rgb(data)
        except Unreadable:
            return True
        return False

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(refuses, bombs))
    done.set()
    watcher.join()
    assert len({tuple(results[i:i + 9]) for i in range(0, len(results), 9)}) == 1 and sum(results[:9]) >= 7
    assert seen <= {limit} and warnings.filters == filters
