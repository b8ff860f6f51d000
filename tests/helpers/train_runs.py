"""Runs of gluon-ft train for tests: the command, a model to begin from, and what is in a run's folder."""
from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import photos
import pytest
from conftest import cli_runner

import gluon_ft
from gluon_ft.cli.main import main
from gluon_ft.cli.train import train
from gluon_ft.evaluation.model import save_model

TINY = {"backbone": "lenet", "workers": 0}  # grey, 28 pixels


def make_source(folder):
    """A model file to fine-tune: LeNet with ten classes and weights of its own."""
    gluon_ft.seed_all(5)
    net = gluon_ft.backbones.build("lenet")
    net.initialize(mx.init.Xavier())
    net(mx.nd.zeros((1, 1, 28, 28)))
    how = gluon_ft.Preprocessing(mean=(0.0,), std=(1.0,), channel_order="gray", size=28, resize=28)
    return save_model(net, folder / "source.params", classes=[str(i) for i in range(10)],
                      preprocessing=how)


def first_run(images, run):
    """A finished run from scratch in `run`, and what the command printed."""
    out = cli(images, "--backbone", "lenet", "--run", run, "--epochs", "3", "lr=0.02", "--json")
    return run, out


def cli(*arguments, status=0):
    """What the command printed to standard output (standard error where it failed)."""
    result = cli_runner().invoke(train, [str(a) for a in arguments], prog_name="gluon-ft train")
    assert result.exit_code == status, (result.output, result.exception)
    return result.stdout if status == 0 else result.stderr


def gluon_ft_command(*arguments, status=0):
    """What `gluon-ft ...` printed to standard output (standard error where it failed)."""
    result = cli_runner().invoke(main, [str(a) for a in arguments], prog_name="gluon-ft")
    assert result.exit_code == status, (result.output, result.exception)
    return result.stderr if status == 2 else result.stdout


def parameters(run, name="last.params"):
    return {key: array.asnumpy() for key, array in mx.nd.load(str(run / name)).items()}


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[key], other[key]) for key in one)


def content(run, name="result"):
    return json.loads((run / f"{name}.json").read_text())


def quiet(_):
    pass


@pytest.fixture(scope="module", name="images")
def images_fixture(tmp_path_factory):
    """Ten images of each of three classes."""
    return photos.make(tmp_path_factory.mktemp("data") / "my photos")


@pytest.fixture(scope="module", name="source")
def source_fixture(tmp_path_factory):
    return make_source(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module", name="finished")
def finished_fixture(images, tmp_path_factory):
    return first_run(images, tmp_path_factory.mktemp("runs") / "first")
