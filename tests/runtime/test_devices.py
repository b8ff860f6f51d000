"""Devices by name, the same option in every command, and KVStore types that fit the devices."""
from __future__ import annotations

import importlib

import click
import mxnet as mx
import pytest
from conftest import cli_runner

from gluon_ft.cli.main import main
from gluon_ft.errors import ConfigError
from gluon_ft.runtime import devices


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 2)
    monkeypatch.setattr(devices.self_test, "check", lambda place: None)


@pytest.mark.parametrize(("spec", "expected"), [
    ("auto", [mx.gpu(0), mx.gpu(1)]), ("cpu", [mx.cpu()]), ("cpu:3", [mx.cpu(0), mx.cpu(1), mx.cpu(2)]),
    ("gpu", [mx.gpu(0)]), ("gpu:1", [mx.gpu(0)]), ("gpu:2", [mx.gpu(0), mx.gpu(1)]),
    ("gpu:0,1", [mx.gpu(0), mx.gpu(1)]),
    ("gpu:1,0", [mx.gpu(1), mx.gpu(0)]), ("gpu:1,", [mx.gpu(1)])])
def test_names_of_devices(two_gpus, spec, expected):
    assert devices.contexts(spec) == expected
    assert devices.contexts(devices.name(expected)) == expected


TWO = "; found 2 that MXNet can use; see gluon-ft doctor, or use cpu"


@pytest.mark.parametrize(("spec", "line"), [
    *((wrong, f"unknown device '{wrong}'; expected auto, cpu, cpu:N, gpu or gpu:N with N at least 1, or chosen cards "
              "such as gpu:0,2") for wrong in ("", "tpu", "cpu:0", "gpu:0", "cpu:-1", "gpu:x", "gpu:", "gpu:,1",
                                              "cpu:0,1", "gpu:0,,1", "GPU", " cpu", "gpu:1:2")),
    ("gpu:0,0", "device 'gpu:0,0' names card 0 twice; expected each card once; several contexts on one device are for "
                "the CPU: cpu:2"),
    ("gpu:9", f"device 'gpu:9' is not there; expected 9 GPUs{TWO}"),
    ("gpu:0,2", f"device 'gpu:0,2' is not there; expected at least 3 GPUs, since cards are numbered from 0{TWO}")])
def test_bad_names_are_one_line(two_gpus, spec, line):
    with pytest.raises(ConfigError) as error:
        devices.contexts(spec)
    assert str(error.value) == line


def test_auto_without_a_gpu(monkeypatch):
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 0)
    assert devices.contexts("auto") == [mx.cpu()]
    with pytest.raises(ConfigError, match="device 'gpu' is not there; expected 1 GPU; found 0"):
        devices.contexts("gpu")


COMMANDS = ["train", "find-lr", "advise", "predict", "evaluate", "explain"]
RECIPES = ["odd_or_even", "hot_dog", "caltech256", "dogs_vs_cats", "bottleneck_svm"]


def commands():
    found = {name: main.get_command(click.Context(main), name) for name in COMMANDS}
    return {**found, **{name: importlib.import_module(name).main for name in RECIPES}}


@pytest.mark.parametrize("name", [*COMMANDS, *RECIPES])
def test_every_command_takes_devices_and_the_earlier_name(name):
    command = commands()[name]
    options = {option.name: option for option in command.params}
    assert options["devices"].opts == ["--devices"] and "device" not in options
    required = [word for p in command.params if p.required for word in
                (["x"] if isinstance(p, click.Argument) else [p.opts[0], "x"])]
    for option in ("--devices", "--device"):
        assert command.make_context(name, [*required, option, "cpu:2"]).params["devices"] == "cpu:2"
    with pytest.raises(click.UsageError, match="option --devices is given twice"):
        command.make_context(name, [*required, "--devices", "cpu", "--device", "gpu"])
    shown = command.get_help(click.Context(command))
    assert "--devices" in shown and "--device " not in shown


def test_a_bad_device_ends_a_command_with_one_line(tmp_path):
    (tmp_path / "a").mkdir()
    done = cli_runner().invoke(main, ["advise", str(tmp_path), "--device", "cpu:0"], prog_name="gluon-ft")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: unknown device 'cpu:0'; expected") and done.stderr.count("\n") == 1


CPUS, GPUS = [mx.cpu(0), mx.cpu(1)], [mx.gpu(0), mx.gpu(1)]


@pytest.mark.parametrize(("kind", "places", "line"), [
    ("nccl", CPUS, "kvstore 'nccl' is for GPUs; expected GPUs, such as --devices gpu:2; found cpu:2; use 'device'"),
    ("nccl", CPUS[:1], "kvstore 'nccl' is for GPUs; .*found cpu; use 'device'"),
    ("nccl", GPUS, r"kvstore 'nccl' is not there; expected an MXNet that was built with NCCL; found mxnet 1\.9\.1 "
                   "without it; use 'device'"),
    ("dist_sync", CPUS, "kvstore 'dist_sync' is for training by several processes; .*put 'gluon-ft launch -n 2 --'"),
    ("dist_device_sync", CPUS[:1], "kvstore 'dist_device_sync' is for training by several processes"),
    ("dist_async", CPUS, "kvstore 'dist_async' is for training by several processes"),
    ("horovod", CPUS, "kvstore 'horovod' is not there; expected horovod, imported before the training")])
def test_kvstores_that_do_not_fit(monkeypatch, kind, places, line):
    monkeypatch.delenv("DMLC_ROLE", raising=False)
    if kind == "nccl" and places is GPUS and mx.runtime.Features().is_enabled("NCCL"):
        pytest.skip("this MXNet has NCCL")
    with pytest.raises(ConfigError, match=line):
        devices.check_kvstore(kind, places)


@pytest.mark.parametrize("kind", ["local", "device"])
@pytest.mark.parametrize("places", [CPUS, CPUS[:1], GPUS])
def test_kvstores_that_fit(kind, places):
    devices.check_kvstore(kind, places)
