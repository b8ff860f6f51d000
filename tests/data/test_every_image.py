"""In evaluation every image comes once, whatever iterator it comes from, in every pass; or it is refused, or said."""
from __future__ import annotations

import warnings
from collections import Counter

import mxnet as mx
import numpy as np
import pytest
from mxnet.gluon import nn

import gluon_ft
from gluon_ft import symbolic
from gluon_ft.data.batches import batches, every_image
from gluon_ft.errors import DataError
from gluon_ft.training.metrics import evaluate

IMAGES, BATCH = 42, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """42 images, each of one grey value, as records, as CSV, and 42 of MNIST's form."""
    root = tmp_path_factory.mktemp("native")
    writer = mx.recordio.MXIndexedRecordIO(str(root / "a.idx"), str(root / "a.rec"), "w")
    for i in range(IMAGES):
        image = np.full((8, 8, 3), 5 * i, np.uint8)
        writer.write_idx(i, mx.recordio.pack_img(mx.recordio.IRHeader(0, float(i), i, 0), image, img_fmt=".png"))
    writer.close()
    np.savetxt(root / "data.csv", np.repeat(np.arange(IMAGES)[:, None], 3, axis=1), delimiter=",")
    np.savetxt(root / "labels.csv", np.arange(IMAGES)[:, None], delimiter=",")
    counts = IMAGES.to_bytes(4, "big")
    side = (28).to_bytes(4, "big")
    (root / "images").write_bytes(b"\0\0\x08\x03" + counts + side + side + bytes(IMAGES * 28 * 28))
    (root / "labels").write_bytes(b"\0\0\x08\x01" + counts + bytes(range(IMAGES)))
    return root


def records(folder, **options):
    return mx.io.ImageRecordIter(path_imgrec=str(folder / "a.rec"), data_shape=(3, 8, 8), preprocess_threads=1,
                                 verbose=False, **{"batch_size": BATCH, **options})


def csv(folder, **options):
    return mx.io.CSVIter(data_csv=str(folder / "data.csv"), data_shape=(3,), label_csv=str(folder / "labels.csv"),
                         batch_size=BATCH, **options)


def seen(stream):
    return Counter(int(label) for batch in stream for label in batch.trimmed().label.asnumpy())


ONCE = Counter(range(IMAGES))
KINDS = {
    "records, rounded": lambda folder: records(folder, round_batch=True),
    "records": lambda folder: records(folder, round_batch=False),
    "records by index": lambda folder: records(folder, path_imgidx=str(folder / "a.idx"), shuffle=True),
    "records by index, not rounded": lambda folder: records(folder, path_imgidx=str(folder / "a.idx"), shuffle=True,
                                                            round_batch=False),
    "records, one large batch": lambda folder: records(folder, batch_size=64, round_batch=False),
    "uint8 records": lambda folder: mx.io.ImageRecordUInt8Iter(
        path_imgrec=str(folder / "a.rec"), data_shape=(3, 8, 8), batch_size=BATCH, round_batch=True, verbose=False),
    "CSV, rounded": lambda folder: csv(folder, round_batch=True),
    "CSV": lambda folder: csv(folder, round_batch=False),
    "arrays": lambda folder: mx.io.NDArrayIter(np.zeros((IMAGES, 3)), np.arange(IMAGES), BATCH),
    "DataLoader": lambda folder: mx.gluon.data.DataLoader(
        mx.gluon.data.ArrayDataset(np.zeros((IMAGES, 3), np.float32), np.arange(IMAGES)), BATCH),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_pass_has_every_image_once(folder, kind):
    source = KINDS[kind](folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(4):
            assert seen(every_image(source)) == ONCE


@pytest.mark.parametrize("kind", ["records", "records by index, not rounded", "records, one large batch"])
def test_training_has_no_rows_of_other_batches(folder, kind):
    source = KINDS[kind](folder)
    for _ in range(3):
        assert sum(seen(batches(source)).values()) == IMAGES
    if "large" not in kind:
        assert sum(seen(batches(source, start=2)).values()) == IMAGES - 2 * BATCH


def test_the_accuracy_stands_still_while_the_weights_do(folder):
    net = nn.HybridSequential()
    net.add(nn.GlobalAvgPool2D(), nn.Flatten(), nn.Dense(IMAGES, in_units=3))
    net.initialize()
    source = KINDS["records, rounded"](folder)
    found = {evaluate(net, source) for _ in range(3)}
    assert len(found) == 1 and next(iter(found)).count == IMAGES
    net(mx.nd.zeros((1, 3, 8, 8)))
    model = symbolic.to_symbol(net, softmax=True)
    assert {symbolic.evaluate(*model, source, BATCH).count for _ in range(3)} == {IMAGES}
    config = gluon_ft.TrainConfig(epochs=3, lr=1e-9, momentum=0.0, wd=0.0, top_k=0)
    train = gluon_ft.data.batches.ArrayLoader(np.zeros((IMAGES, 3, 8, 8)), np.arange(IMAGES), BATCH)
    for history in (gluon_ft.fit(net, train, source, config).history,
                    symbolic.fit(*model, train, source, BATCH, config=config, speedometer=0).history):
        assert len({record["validation_accuracy"] for record in history}) == 1


@pytest.mark.parametrize("last, wording, counts", [
    ("discard", r"2 of 42 images are left out of this pass \(last_batch='discard'; 'keep' takes all\)", [40, 40]),
    ("rollover", r"2 of 42 images are left out of this pass \(last_batch='rollover'; 'keep' takes all\)", [40, 40]),
])
def test_what_a_data_loader_leaves_out_is_said(last, wording, counts):
    images = mx.gluon.data.ArrayDataset(np.zeros((IMAGES, 3), np.float32), np.arange(IMAGES))
    source = mx.gluon.data.DataLoader(images, BATCH, last_batch=last)
    for count in counts:
        with pytest.warns(RuntimeWarning, match=f"the evaluation: {wording}"):
            assert sum(seen(every_image(source, "the evaluation")).values()) == count


def test_images_that_a_data_loader_gives_twice_are_refused_with_its_own_setting():
    images = mx.gluon.data.ArrayDataset(np.zeros((10, 3), np.float32), np.arange(10))
    source = mx.gluon.data.DataLoader(images, 4, last_batch="rollover")
    with pytest.warns(RuntimeWarning, match="2 of 10 images are left out"):
        seen(every_image(source))
    with pytest.raises(DataError, match=r"12 images in a pass over 10; .*; last_batch='rollover'; 'keep' takes all$"):
        seen(every_image(source))


@pytest.mark.parametrize("handle", ["discard", "roll_over"])
def test_what_an_iterator_of_arrays_leaves_out_is_said_and_stays_the_same(handle):
    source = mx.io.NDArrayIter(np.zeros((IMAGES, 3)), np.arange(IMAGES), BATCH, last_batch_handle=handle)
    found = []
    for _ in range(3):
        with pytest.warns(RuntimeWarning, match=rf"2 of 42 images are left out .*last_batch_handle='{handle}'; 'pad'"):
            found.append(seen(every_image(source)))
    assert found[0] == found[1] == found[2] == Counter(range(40))


def test_images_that_are_kept_for_the_next_pass_are_trained_on():
    source = mx.io.NDArrayIter(np.zeros((IMAGES, 3)), np.arange(IMAGES), BATCH, last_batch_handle="roll_over")
    passes = [seen(batches(source)) for _ in range(4)]
    assert sum(passes, Counter()).most_common()[0][1] == 4 and sum(map(len, passes)) >= 4 * IMAGES - BATCH
    assert {40, 41} <= set(passes[1]) and {40, 41}.isdisjoint(passes[0])


def test_what_cannot_be_right_is_refused(folder):
    mnist = mx.io.MNISTIter(image=str(folder / "images"), label=str(folder / "labels"), batch_size=BATCH, shuffle=False,
                            silent=True)
    with pytest.raises(DataError, match=r"the set: 40 images in a pass over 42; expected every image once; read the "
                                        r"same file with gluon_ft\.loaders\.make_loader"):
        seen(every_image(mnist, "the set"))
    part = records(folder, num_parts=2, part_index=0, round_batch=False)
    with pytest.raises(DataError, match=r"last batch of this iterator may end in rows of others; .*round_batch=True"):
        seen(every_image(part))
    unknown = csv(folder)
    del unknown._gluon_ft_made_by
    with pytest.raises(DataError, match=r"it is not known what this MXDataIter was made of; .*import gluon_ft before"):
        seen(every_image(unknown))


def test_a_loader_that_shows_images_twice_is_refused():
    class Twice(list):
        labels = np.arange(3)

    with pytest.raises(DataError, match="the loader: 6 images in a pass over 3"):
        seen(every_image(Twice([(np.zeros((6, 3)), np.zeros(6))])))
