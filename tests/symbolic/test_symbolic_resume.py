"""Checkpoints of symbolic training: MXNet can read them, and going on gives the same bits as never having stopped."""
from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest
import symbols
from test_symbolic_fit import CLASSES, QUIET, fit, model, pictures, vgg

from gluon_ft import symbolic
from gluon_ft.data.batches import ArrayLoader
from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import CheckpointError, DataError, Interrupted


def loader(count=18, shuffle=True, classes=None):
    made = ArrayLoader(*pictures(count), 6, shuffle=shuffle, seed=3)
    made.classes = classes
    return made


class Killed(Exception):
    """What ends a run in the middle here."""


def stop_after(epoch):
    def on_epoch(record):
        if record["epoch"] == epoch:
            raise Killed
    return on_epoch


def same(a, b):
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_array_equal(a[name].asnumpy(), b[name].asnumpy(), err_msg=name)


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


@pytest.mark.parametrize(("build", "options", "contexts"), [
    (vgg, {"momentum": 0.9, "wd": 0.01}, 1),  # with dropout, so random state counts
    (vgg, {"optimizer": "adam", "lr": 1e-3}, 1),
    (vgg, {"optimizer": "adam", "lr": 1e-3}, 2),
    (vgg, {"optimizer": "rmsprop", "lr": 1e-3}, 1),
    (lambda: model(), {"momentum": 0.9}, 2),
    (lambda: model(with_head=False), {}, 1),
])
def test_going_on_gives_the_same_bits(tmp_path, build, options, contexts):
    net = build()
    shared = {"config": replace(QUIET, epochs=3, **options), "ctx": [mx.cpu(i) for i in range(contexts)],
              "batch_size": 6, "head_lr_mult": 10, "frozen": ["conv0_weight" if len(net[1]) > 20 else "conv1_1_weight"]}
    whole = fit(net, loader(), loader(6, False), **shared)
    with pytest.raises(Killed):
        fit(net, loader(), loader(6, False), save_to=tmp_path, on_epoch=stop_after(1), **shared)
    seen = []
    rest = fit(net, loader(), loader(6, False), save_to=tmp_path, resume=True, on_epoch=seen.append, **shared)
    assert [r["epoch"] for r in seen] == [2, 3]
    same(whole.arg_params, rest.arg_params)
    same(whole.aux_params, rest.aux_params)
    assert without_seconds(whole.history) == without_seconds(rest.history)
    assert rest.best_epoch == whole.best_epoch
    assert rest.last == tmp_path / "model-0003.params"


def test_mxnet_reads_the_files_and_nothing_else_is_left(tmp_path):
    result = fit(model(), loader(), batch_size=6, save_to=tmp_path / "run",
                 config=replace(QUIET, epochs=2, momentum=0.9), preprocessing=Preprocessing())
    names = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert names == ["model-0001.json", "model-0001.optimizer.params", "model-0001.params", "model-0002.json",
                     "model-0002.optimizer.params", "model-0002.params", "model-symbol.json"]
    for load in (mx.model.load_checkpoint, symbolic.load_checkpoint):
        symbol, args, aux = load(str(tmp_path / "run" / "model"), 2)
        assert symbol.tojson() == result.symbol.tojson()
        same(args, result.arg_params)
        same(aux, result.aux_params)
    found = symbolic.find_source(checkpoint=(tmp_path / "run" / "model", 2))
    assert found.preprocessing == Preprocessing()


@pytest.mark.parametrize("depth", [18, 50, pytest.param(152, marks=pytest.mark.slow)])
def test_published_resnets_from_file_to_two_steps_and_on(tmp_path, depth):
    width = {18: 0.25, 50: 0.25, 152: 1.0}[depth]
    symbol = symbols.resnet(depth, width=width)
    args, aux = symbols.parameters(symbol)
    mx.model.save_checkpoint(str(tmp_path / "net"), 0, symbol, args, aux)
    symbol, args, aux = symbolic.load_checkpoint(tmp_path / "net", 0)
    net = (*symbolic.get_fine_tune_model(symbol, args, CLASSES), aux)
    shared = {"batch_size": 5, "save_to": tmp_path, "config": replace(QUIET, epochs=2, momentum=0.9)}
    with pytest.raises(Killed):
        fit(net, ArrayLoader(*pictures(10), 5), on_epoch=stop_after(1), **shared)
    first = symbolic.load_checkpoint(tmp_path / "model", 1)[1]
    again = fit(net, ArrayLoader(*pictures(10), 5), resume=True, **shared)
    assert len(again.history) == 2
    assert not np.array_equal(first["conv0_weight"].asnumpy(), again.arg_params["conv0_weight"].asnumpy())
    assert not np.array_equal(args["conv0_weight"].asnumpy(), first["conv0_weight"].asnumpy())


def test_inception_bn_trains_two_steps_and_goes_on(tmp_path):
    symbol = symbols.inception_bn()
    args, aux = symbols.parameters(symbol)
    net = (*symbolic.get_fine_tune_model(symbol, args, CLASSES, "flatten"), aux)
    shared = {"batch_size": 5, "save_to": tmp_path}
    one = fit(net, ArrayLoader(*pictures(10), 5), **shared)
    two = fit(net, ArrayLoader(*pictures(10), 5), resume=True, config=replace(QUIET, epochs=2), **shared)
    assert len(two.history) == 2
    assert not np.array_equal(one.arg_params["conv_1_weight"].asnumpy(), two.arg_params["conv_1_weight"].asnumpy())
    assert all((two.arg_params[n].asnumpy() == 1).all() for n in two.arg_params if n.endswith("gamma")), "fix_gamma"


@pytest.fixture
def kept(tmp_path):
    fit(vgg(), loader(classes=list("abcde")), batch_size=6, save_to=tmp_path,
        config=replace(QUIET, epochs=2, momentum=0.9))
    return tmp_path


def go_on(folder, classes=None, **options):
    options = {"config": replace(QUIET, epochs=3, momentum=0.9), **options}
    return fit(vgg(), loader(classes=classes or list("abcde")), batch_size=6, save_to=folder, resume=True, **options)


def test_other_settings_are_told(kept):
    with pytest.raises(CheckpointError, match=r"made with another 'config'; expected lr 0.01; found lr 0.02; go on"):
        go_on(kept, config=replace(QUIET, lr=0.02, momentum=0.9))
    with pytest.raises(CheckpointError, match=r"another 'lr_mult'; expected fc1_weight 1.0; found fc1_weight 5.0"):
        go_on(kept, head_lr_mult=5)
    with pytest.raises(CheckpointError, match=r"another 'lr_mult'; expected conv1_1_weight 1.0; found conv1_1_weig"):
        go_on(kept, frozen=["conv1_1"])
    with pytest.raises(CheckpointError, match="made with another 'devices'; expected 1; found 2"):
        go_on(kept, ctx=[mx.cpu(0), mx.cpu(1)])
    with pytest.raises(DataError, match="training set: class 'x' is none of the checkpoint's; expected 5 classes: a, "
                                        "b, c, d, e; found 5 classes: a, b, c, d, x"):
        go_on(kept, classes=list("abcdx"))


@pytest.mark.parametrize("name", ["model-0002.params", "model-0002.optimizer.params"])
def test_a_damaged_file_is_named_with_a_way_out(kept, name):
    data = bytearray((kept / name).read_bytes())
    data[-300] ^= 255
    (kept / name).write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match=f"{name}: the file is not the one that was saved; expected sha256 .*; "
                                              "delete model-0002.json to go on from the epoch before"):
        go_on(kept)
    (kept / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: the file is missing"):
        go_on(kept)
    (kept / "model-0002.json").unlink()
    assert [r["epoch"] for r in go_on(kept).history] == [1, 2, 3]


def test_an_epoch_that_was_cut_short_does_not_count(kept):
    (kept / "model-0003.params").write_bytes(b"half")
    assert go_on(kept).last == kept / "model-0003.params"
    (kept / "model-0003.json").write_text('{"format": "gluon_ft symb')
    with pytest.raises(CheckpointError, match=r"model-0003.json: not a checkpoint's description; expected gluon_ft"):
        go_on(kept)


def test_a_finished_run_and_an_empty_folder(kept, tmp_path):
    before = json.loads((kept / "model-0002.json").read_text())
    done = go_on(kept, config=replace(QUIET, epochs=2, momentum=0.9))
    assert done.history == before["history"]
    same(done.arg_params, symbolic.load_checkpoint(kept / "model", 2)[1])
    assert len(go_on(tmp_path / "new").history) == 3


def test_an_iterator_that_does_not_count_is_warned_about(tmp_path):
    data, labels = pictures(10)
    net = vgg()
    fit(net, mx.io.NDArrayIter(data, labels, 5), batch_size=5, save_to=tmp_path)
    with pytest.warns(RuntimeWarning, match="does not count its passes"):
        fit(net, mx.io.NDArrayIter(data, labels, 5), batch_size=5, save_to=tmp_path, resume=True,
            config=replace(QUIET, epochs=2))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="the checkpoint could not be saved"):
        fit(vgg(), loader(), batch_size=6, save_to=tmp_path / "file" / "run")


@pytest.mark.parametrize("number, at", [(signal.SIGTERM, 5), (signal.SIGINT, 2), (signal.SIGTERM, 1)])
def test_a_signal_ends_it_with_what_is_saved(tmp_path, number, at):
    """In a batch of the second epoch, of the first, and in the one that shows the images' shape."""
    class Interrupting(ArrayLoader):
        left = at

        def __iter__(self):
            for batch in super().__iter__():
                self.left -= 1
                if self.left == 0:
                    os.kill(os.getpid(), number)
                yield batch

    net, shared = vgg(), {"config": replace(QUIET, epochs=2), "batch_size": 6}
    folder, before = tmp_path / "run", signal.getsignal(number)
    with pytest.raises(Interrupted) as stop:
        fit(net, Interrupting(*pictures(18), 6, shuffle=True, seed=3), None, save_to=folder, **shared)
    assert stop.value.status == 128 + number and signal.getsignal(number) == before
    assert {5: f"stopped in epoch 2; the epochs before are saved in {folder}", 1: "stopped before training",
            2: "stopped in epoch 1; nothing was saved yet"}[at] in str(stop.value)
    assert bool(list(folder.glob("*.json"))) == (at == 5) and not list(folder.glob(".*"))
    whole = fit(net, loader(), None, **shared)
    same(fit(net, loader(), None, save_to=folder, resume=True, **shared).arg_params, whole.arg_params)


def test_a_folder_that_disappears_ends_it(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(CheckpointError, match="the folder was removed, or replaced, while it was written to"):
        fit(vgg(), loader(), None, save_to=folder, config=replace(QUIET, epochs=2), batch_size=6,
            on_epoch=lambda record: shutil.rmtree(folder))
    assert not folder.exists()
