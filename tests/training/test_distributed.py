"""Several worker processes train as one process does with the same batches: same parameters, same measures."""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import HELPERS

from gluon_ft.errors import ConfigError
from gluon_ft.training.config import TrainConfig
from gluon_ft.training.step import check_workers

CHILD = [sys.executable, str(HELPERS / "distributed_training.py")]
LAUNCH = [sys.executable, "-m", "gluon_ft.cli.main", "launch"]


def run(command, status=0):
    done = subprocess.run(command, capture_output=True, text=True, timeout=200,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == status, done.stderr[-3000:]
    return done


def trained(tmp_path, path, workers, *options, kvstore="dist_sync", servers=1):
    """(parameters, history) of a training by so many workers; 0: by one process."""
    result = tmp_path / f"{path}-{workers}-{len(list(tmp_path.iterdir()))}.json"
    launched = [*LAUNCH, "-n", str(workers), "-s", str(servers), "--"] if workers else []
    run([*launched, *CHILD, path, kvstore if workers else "device", str(result), *options])
    return read(result)


def read(path):
    found = json.loads(path.read_text())
    return {name: np.array(value) for name, value in found["parameters"].items()}, found["history"]


def same(found, wanted, most=1e-5):
    """The parameters agree relative to the largest of their array, and so do the measures; counts are equal."""
    assert found[0].keys() == wanted[0].keys()
    for name, value in wanted[0].items():
        assert np.abs(found[0][name] - value).max() <= most * np.abs(value).max(), name
    assert [record.keys() for record in found[1]] == [record.keys() for record in wanted[1]]
    for record, other in zip(found[1], wanted[1]):
        for key, value in record.items():
            assert value == (other[key] if "accuracy" in key or "top" in key else
                             pytest.approx(other[key], rel=max(most, 1e-5)))


def test_two_workers_end_where_one_process_does(tmp_path):
    # The last batch of each epoch has one image: one of the workers has none of it.
    same(trained(tmp_path, "gluon", 2, "width=32"), trained(tmp_path, "gluon", 0, "width=32"))


@pytest.mark.slow
@pytest.mark.parametrize("path, workers, servers, options", [
    ("gluon", 3, 2, ()),
    ("gluon", 2, 1, ("accumulate=2", "optimizer=adam", "lr=0.01", "clip_norm=0.5", "schedule=cosine")),
    ("gluon", 2, 1, ("devices=2", "ema=0.9", "balance=sampling", "label_smoothing=0.1")),
    ("gluon", 2, 2, ("balance=weights", "head_epochs=1")),
    ("symbolic", 2, 1, ("width=32",)), ("symbolic", 3, 2, ("optimizer=adam", "lr=0.01", "schedule=cosine")),
    ("symbolic", 2, 1, ("devices=2", "label_smoothing=0.1"))])
def test_workers_end_where_one_process_does(tmp_path, path, workers, servers, options):
    same(trained(tmp_path, path, workers, *options, servers=servers), trained(tmp_path, path, 0, *options))


@pytest.mark.slow
def test_running_statistics_are_the_mean_of_the_workers(tmp_path):
    found = trained(tmp_path, "gluon", 2, "live=1")
    one = trained(tmp_path, "gluon", 0, "live=1")
    assert np.abs(found[0]["1.running_mean"]).max() > 0.01
    # Each normalises with the statistics of its own images: near, and not the same.
    same((found[0], []), (one[0], []), most=2.0)
    assert np.abs(found[0]["5.weight"] - one[0]["5.weight"]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("path", ["gluon", "symbolic"])
def test_asynchronous_workers_learn(tmp_path, path):
    _, history = trained(tmp_path, path, 2, "epochs=8", "momentum=0.0", kvstore="dist_async")
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("path, save_every", [("gluon", 0), ("gluon", 1), ("symbolic", 0)])
def test_a_killed_worker_ends_all_and_resuming_gives_the_same(tmp_path, path, save_every):
    options = (f"save_every={save_every}",)
    wanted = trained(tmp_path, path, 2, *options, f"folder={tmp_path / 'whole'}")
    folder, result, begun = tmp_path / "cut", tmp_path / "cut.json", time.monotonic()
    job = [*LAUNCH, "-n", "2", "--", *CHILD, path, "dist_sync", str(result), *options, f"folder={folder}"]
    done = run([*job, "kill=2"], status=1)
    assert time.monotonic() - begun < 40
    assert "launch: worker 1 was ended by SIGKILL; the others are ended" in done.stderr and not result.exists()
    saved = {"epoch-0002-batch-000002.ckpt" if save_every else "epoch-0002-batch-000000.ckpt", "model-0001.json"}
    assert saved & {file.name for file in folder.rglob("*")}
    run([*job, "resume=1"])
    same(read(result), wanted, most=0)
    if path == "gluon":  # one process goes on with it as well
        same(trained(tmp_path, path, 0, *options, f"folder={folder}", "resume=1"), wanted, most=0)


@pytest.mark.parametrize("settings, words", [
    ({"cache_features": "memory"}, "cache_features is not for kvstore 'dist_sync'; expected cache_features none"),
    ({"seed": None}, "several workers need a seed"),
    ({"kvstore": "dist_async", "clip_norm": 1.0}, "clip_norm is not for kvstore 'dist_async'"),
    ({"kvstore": "dist_async", "ema": 0.9}, "ema is not for"),
    ({"kvstore": "dist_async", "save_every": 5}, "save_every is not for")])
def test_settings_that_workers_refuse(settings, words):
    with pytest.raises(ConfigError, match=words):
        check_workers(TrainConfig(**{"kvstore": "dist_sync", **settings}))


def test_a_process_that_is_no_worker(monkeypatch):
    from resume_nets import network, sets

    from gluon_ft.training.fit import fit

    monkeypatch.delenv("DMLC_ROLE", raising=False)
    with pytest.raises(ConfigError, match=r"kvstore 'dist_sync' is for training by several processes.*gluon-ft launch"):
        fit(network(), *sets(), TrainConfig(kvstore="dist_sync"))
