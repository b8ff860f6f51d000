"""Programs of MXNet's time run unchanged once gluon_ft is installed: none of them imports it.

Written anew from what the originals do: D2L's chapter on fine-tuning (two interfaces), the how-to, fine-tuning and
MNIST readers as in image-classification, GluonCV's transfer learning and finetuning. Each ends with 'accuracy X'.
"""
from __future__ import annotations

import gzip
import os
import re
import struct
import subprocess
import sysconfig
import venv
from pathlib import Path

import mxnet as mx
import numpy as np
import photos
import pytest
from conftest import ROOT

PROGRAMS = Path(__file__).parent / "programs"
IM2REC = Path(mx.__file__).parent / "tools" / "im2rec.py"


def run(python, *arguments, **environment):
    """What a program wrote on both streams; it runs in another folder than ours, and sees no folder of ours."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([str(python), *map(str, arguments)], capture_output=True, text=True, check=False,
                          env={**env, "MPLBACKEND": "Agg", **environment})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def accuracy(output):
    return float(re.findall(r"^accuracy (\S+)$", output, re.MULTILINE)[-1])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A Python in which pip has installed gluon_ft, beside the packages of this one."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(ROOT)], capture_output=True,
                          text=True, check=False)
    if done.returncode != 0 and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("pip reaches no index to build a wheel with")
    assert done.returncode == 0, done.stderr
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with train/ and test/, each with 16 and 8 pictures of two colours."""
    folder = tmp_path_factory.mktemp("pictures")
    photos.make(folder / "train", ("blue", "red"), count=16)
    photos.make(folder / "test", ("blue", "red"), count=8, seed=1)
    return folder


@pytest.fixture(scope="module")
def records(pictures, installed, tmp_path_factory):
    """The same pictures in record files, by MXNet's own im2rec."""
    folder = tmp_path_factory.mktemp("records")
    for part, count in (("train", 32), ("test", 16)):
        for options in (("--list", "--recursive"), ("--resize", 36, "--quality", 95)):
            run(installed, IM2REC, folder / part, pictures / part, *options)
        assert len((folder / f"{part}.idx").read_text().splitlines()) == count
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Parameter files of networks with 1000 outputs, and a symbol's checkpoint with a layer `flatten0`."""
    from gluoncv import model_zoo

    folder = tmp_path_factory.mktemp("weights")
    mx.random.seed(1)
    for name, build in (("resnet18_v2", mx.gluon.model_zoo.vision.get_model), ("resnet18_v1b", model_zoo.get_model),
                        ("cifar_resnet20_v1", model_zoo.get_model)):
        net = build(name, classes=1000)
        net.initialize(mx.init.Xavier())
        net(mx.nd.zeros((1, 3, 64, 64)))
        net.save_parameters(str(folder / f"{name}.params"))
    layer = mx.sym.BatchNorm(mx.sym.var("data"), fix_gamma=True, name="bn_data")
    layer = mx.sym.Convolution(layer, kernel=(3, 3), stride=(2, 2), num_filter=8, name="conv0")
    layer = mx.sym.Activation(layer, act_type="relu")
    layer = mx.sym.Flatten(mx.sym.Pooling(layer, global_pool=True, pool_type="avg", kernel=(1, 1)), name="flatten0")
    symbol = mx.sym.SoftmaxOutput(mx.sym.FullyConnected(layer, num_hidden=1000, name="fc1"), name="softmax")
    module = mx.mod.Module(symbol)
    module.bind([("data", (1, 3, 32, 32))], [("softmax_label", (1,))])
    module.init_params(mx.init.Xavier())
    module.save_checkpoint(str(folder / "symbol"), 0)
    return folder


def options_of(program, pictures, weights, records, out):
    module = ("--pretrained-model", weights / "symbol", "--data-train", records / "train.rec", "--data-val",
              records / "test.rec", "--model-prefix", out / "tuned")
    d2l = (pictures, weights / "resnet18_v2.params", 6)
    return {
        "d2l_np": d2l, "d2l_nd": d2l,
        "gluoncv_transfer": (pictures, weights / "resnet18_v1b.params", out / "models", 12),
        "gluoncv_finetune": ("--data", pictures, "--params", weights / "cifar_resnet20_v1.params", "--save-dir", out,
                             "--epochs", 8),
        "howto": (weights / "symbol", records / "train.rec", records / "test.rec"), "module_fine_tune": module,
        "image_folder_workers": (pictures, 3)}[program]


@pytest.mark.slow
@pytest.mark.parametrize("program", ["d2l_np", "d2l_nd", "gluoncv_transfer", "gluoncv_finetune", "howto",
                                     "module_fine_tune", "image_folder_workers"])
def test_program_learns_two_colours(program, installed, pictures, weights, records, tmp_path):
    options = options_of(program, pictures, weights, records, tmp_path)
    assert accuracy(run(installed, PROGRAMS / f"{program}.py", *options)) >= 0.8


@pytest.fixture
def digits(tmp_path):
    """Two compressed IDX files: 64 drawn ones and zeros (a bar, a ring) of 28 x 28."""
    rng = np.random.RandomState(0)
    labels = np.arange(64) % 2
    images = rng.randint(0, 60, (64, 28, 28)).astype("uint8")
    images[labels == 1, 4:24, 12:16] = 255
    images[labels == 0, 6:22, 6:22] = 255
    images[labels == 0, 10:18, 10:18] = 0
    with gzip.open(tmp_path / "labels.gz", "wb") as file:
        file.write(struct.pack(">II", 2049, 64) + labels.astype("uint8").tobytes())
    with gzip.open(tmp_path / "images.gz", "wb") as file:
        file.write(struct.pack(">IIII", 2051, 64, 28, 28) + images.tobytes())
    return tmp_path / "labels.gz", tmp_path / "images.gz"


@pytest.mark.slow
def test_old_reader_of_digits(installed, digits):
    assert accuracy(run(installed, PROGRAMS / "mnist_module.py", *digits)) == 1.0
