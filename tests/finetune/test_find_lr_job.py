"""find-lr measures the job that train runs: the same images, network, frozen layers, features and settings."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import photos
import pytest
from train_runs import make_source, quiet

from gluon_ft import finetune, freezing
from gluon_ft.data import split
from gluon_ft.data.lists import list_file
from gluon_ft.data.records import pack
from gluon_ft.errors import ConfigError
from gluon_ft.finetune import run as module
from gluon_ft.training.feature_cache.select import select


class Stop(Exception):
    pass


def seen(monkeypatch, name, call):
    """What `fit` or `lr_finder.find_lr` is given by a job."""
    found = {}

    def look(net, train, *rest, ctx=None, **_):
        config, table = rest[-1], freezing.describe(net).rows
        values = {path: p.data().asnumpy() for path, p in net._collect_params_with_prefix().items()}
        running = select(net, train, None, config, ctx)
        features = [(batch.data.asnumpy(), batch.label.asnumpy()) for batch in running.train]
        found.update(table=table, values=values, config=config, features=features,
                     images=[(train.source.where(i), int(label)) for i, label in enumerate(train.labels)])
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(module if name == "fit" else module.lr_finder, name, look)
        with pytest.raises(Stop):
            call()
    return found


@pytest.mark.parametrize("options", [
    {"strategy": "head"}, {"freeze": "none", "mixup": 0.2, "batch_size": 6},
    *(pytest.param(options, marks=pytest.mark.slow) for options in (
        {"strategy": "last-stages"}, {"head_lr_mult": 3.0, "freeze": "2", "views": 2}))])
def test_find_lr_measures_what_train_trains(tmp_path, monkeypatch, options):
    images, source = photos.make(tmp_path / "photos"), make_source(tmp_path)
    options = {"pretrained": str(source), "say": quiet, **options}
    trained = seen(monkeypatch, "fit", lambda: finetune.train(images, run=tmp_path / "run", lr=0.02, **options))
    measured = seen(monkeypatch, "find_lr", lambda: finetune.find_lr(images, **options))
    # The folder of lists differs, the images in it do not.
    assert [(str(where).rpartition("photos")[2], label) for where, label in measured["images"]] == [
        (str(where).rpartition("photos")[2], label) for where, label in trained["images"]]
    assert len(measured["images"]) == 24 and measured["table"] == trained["table"]
    assert replace(measured["config"], lr=0.02) == trained["config"]
    assert (trained["config"].cache_features == "memory") == ("mixup" not in options)
    for path, array in trained["values"].items():
        np.testing.assert_array_equal(measured["values"][path], array, err_msg=path)
    for (one, labels), (other, others) in zip(measured["features"], trained["features"]):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(labels, others)


def test_find_lr_suggests_for_cached_features(tmp_path):
    images, source = photos.make(tmp_path / "photos"), make_source(tmp_path)
    said = []
    found, job = finetune.find_lr(images, pretrained=str(source), strategy="head", steps=20,
                                 say=said.append)
    assert job.strategy == "head" and job.cache_features == "memory" and len(found.losses) > 10
    assert "strategy: head" in said and sorted(path.name for path in tmp_path.iterdir()) == [
        "photos", "source.params", "source.params.json"]


def test_a_rate_for_an_svm_is_refused(tmp_path):
    images, source = photos.make(tmp_path / "photos"), make_source(tmp_path)
    for call in (finetune.find_lr, lambda *args, **options: finetune.train(*args, lr=0.01, **options)):
        with pytest.raises(ConfigError, match="strategy 'svm' does not train by steps: lr would be ignored"):
            call(images, pretrained=str(source), strategy="svm", say=quiet)


def test_packed_records_and_lists(tmp_path):
    images = photos.make(tmp_path / "photos")
    split.write(split.split(images, fraction=0.8), tmp_path / "p")
    packed = pack.pack(list_file(tmp_path / "p", "train"), images, workers=1)[0].rec
    for source, options in ((packed, {}), (list_file(tmp_path / "p", "train"), {"root": images})):
        found, job = finetune.find_lr(source, backbone="lenet", pretrained="none", steps=20, say=quiet, **options)
        assert job.strategy == "scratch" and len(found.losses) > 10
