"""cards: which GPUs mxnet-cu112 runs on, what nvidia-smi and the driver's library say, the driver's version."""
from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from gluon_ft.errors import ConfigError
from gluon_ft.runtime import devices
from gluon_ft.runtime.gpu import cards, self_test


@pytest.mark.parametrize("capability, name, runs", [
    ((3, 7), "Kepler", False), ((5, 2), "Maxwell", True), ((6, 1), "Pascal", True), ((7, 0), "Volta", True),
    ((7, 5), "Turing", True), ((8, 0), "Ampere", True), ((8, 6), "Ampere", True), ((8, 9), "Ada", True),
    ((9, 0), "Hopper", False), ((10, 0), "Blackwell", False), ((12, 0), "Blackwell", False)])
def test_capabilities(capability, name, runs):
    assert (cards.generation(capability), cards.runs_mxnet(capability)) == (name, runs)
    obstacle = cards.gpu_obstacle({"capability": capability, "driver": "535.1"})
    assert (obstacle is None) is runs
    if not runs:
        assert obstacle.startswith(f"{name} (compute capability {capability[0]}.{capability[1]})")


def test_old_driver():
    gpu = {"capability": (7, 5), "driver": "418.87.00"}
    assert cards.gpu_obstacle(gpu) == "driver 418.87.00 is too old for CUDA 11.2: it needs 450.80 or later"
    assert cards.gpu_obstacle({"capability": None, "driver": "[N/A]"}) is None


def nvidia_smi(folder, body):
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


def test_nvidia_smi(tmp_path):
    program = nvidia_smi(tmp_path, "echo 'NVIDIA H100 PCIe, 535.104.05, 81559 MiB, 9.0'\n"
                                   "echo 'Tesla T4, 535.104.05, 15360 MiB, 7.5'")
    gpus = cards.nvidia_gpus(program)
    assert [g["capability"] for g in gpus] == [(9, 0), (7, 5)]
    assert gpus[1] == {"name": "Tesla T4", "driver": "535.104.05", "memory_mib": 15360, "capability": (7, 5)}


def test_nvidia_smi_that_does_not_know_the_capability(tmp_path):
    program = nvidia_smi(tmp_path, "case $1 in *compute_cap*) echo 'Field \"compute_cap\" is not valid' >&2; exit 2;;\n"
                                   "*) echo 'Tesla K80, 418.87.00, 11441 MiB';; esac")
    assert cards.nvidia_gpus(program) == [
        {"name": "Tesla K80", "driver": "418.87.00", "memory_mib": 11441, "capability": None}]


def test_no_nvidia_smi_or_one_that_fails(tmp_path):
    assert cards.nvidia_gpus(str(tmp_path / "none")) == []
    assert cards.nvidia_gpus(nvidia_smi(tmp_path, "echo 'NVIDIA-SMI has failed'; exit 9")) == []


@pytest.mark.parametrize(("line", "version"), [
    ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
    ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build  (dvs)", "570.86.10"),
    ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  418.87  Thu Aug  8 15:35:46 CDT 2019", "418.87")])
def test_version_of_the_driver(tmp_path, line, version):
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 12.2.0\n")
    assert cards.driver_version(tmp_path / "version", str(tmp_path / "none")) == version
    program = nvidia_smi(tmp_path, "echo 'Tesla T4, 535.1, 15360 MiB, 7.5'")
    assert cards.driver_version(tmp_path / "none", program) == "535.1"
    assert cards.driver_version(tmp_path / "none", str(tmp_path / "none")) is None


class Driver:
    """Stands in for libcuda.so.1 with cards of these compute capabilities."""

    def __init__(self, *capabilities, starts=True):
        self.capabilities, self.starts = capabilities, starts

    def cuInit(self, flags):
        return 0 if self.starts else 100  # CUDA_ERROR_NO_DEVICE

    def cuDeviceGetCount(self, count):
        count._obj.value = len(self.capabilities)
        return 0

    def cuDeviceGet(self, device, number):
        device._obj.value = number
        return 0

    def cuDeviceGetName(self, name, size, device):
        name.value = f"Card {device.value}".encode()
        return 0

    def cuDeviceGetAttribute(self, value, which, device):
        value._obj.value = self.capabilities[device.value][which - 75]
        return 0

    def cuDeviceTotalMem_v2(self, memory, device):
        memory._obj.value = 16 << 30
        return 0


def test_cards_as_cuda_numbers_them(monkeypatch):
    monkeypatch.setattr(cards, "driver_version", lambda: "535.1")
    assert cards.visible(Driver((9, 0), (8, 6))) == [
        {"name": "Card 0", "driver": "535.1", "memory_mib": 16384, "capability": (9, 0)},
        {"name": "Card 1", "driver": "535.1", "memory_mib": 16384, "capability": (8, 6)}]
    assert cards.visible(Driver((9, 0), starts=False)) == []
    assert cards.visible(object()) == []  # a library without these functions


@pytest.fixture
def three_cards(monkeypatch):
    """Hopper, Ampere and Blackwell; the tests of single cards are counted, and not run."""
    monkeypatch.setattr(cards, "driver_version", lambda: "570.1")
    found = cards.visible(Driver((9, 0), (8, 6), (12, 0)))
    monkeypatch.setattr(cards, "_known", lambda: found)
    monkeypatch.setattr(mx.context, "num_gpus", lambda: 3)
    tested = []
    monkeypatch.setattr(self_test, "check", tested.append)
    return tested


def test_auto_takes_no_card_that_cannot_run(three_cards, capsys, monkeypatch):
    assert devices.contexts("auto") == three_cards == [mx.gpu(1)]
    assert devices.name([mx.gpu(1)]) == "gpu:1,"
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["gpu(0) is left out: Hopper", "gpu(2) is left out: Blackwell"]
    assert devices.contexts("gpu:1,") == [mx.gpu(1)]


@pytest.mark.parametrize(("spec", "card", "name"), [("gpu", 0, "Hopper"), ("gpu:2", 0, "Hopper"),
                                                    ("gpu:1,2", 2, "Blackwell")])
def test_a_named_card_that_cannot_run_is_refused(three_cards, spec, card, name):
    with pytest.raises(ConfigError, match=rf"gpu\({card}\) cannot run this MXNet; found {name} .* export the model to "
                                          "ONNX"):
        devices.contexts(spec)


@pytest.fixture
def untested(monkeypatch):
    monkeypatch.setattr(self_test, "_passed", set())


def test_the_step_that_tests_a_card_runs_once(untested):
    runs = []

    def work(device):
        runs.append(device)
        return self_test.step(device)

    mx.random.seed(1)
    for _ in range(2):
        self_test.check(mx.cpu(1), work)
    assert runs == [mx.cpu(), mx.cpu(1)]
    drawn = mx.random.uniform(shape=1).asscalar()
    mx.random.seed(1)
    assert drawn == mx.random.uniform(shape=1).asscalar()
    values = self_test.step(mx.cpu())
    start = np.random.RandomState(0).uniform(-1, 1, (8, 3, 3, 3))
    assert np.abs(values[2] - start).max() > 1e-3  # the step moves the weights


def wrong(device):
    values = self_test.step(device)
    return [values[0] * 1.5, *values[1:]] if device == mx.cpu(1) else values


def not_a_number(device):
    values = self_test.step(device)
    return [*values[:-1], values[-1] * np.nan] if device == mx.cpu(1) else values


def failing(device):
    if device == mx.cpu(1):
        raise mx.MXNetError("Traceback\n  CUDA: no kernel image is available for execution on the device")
    return self_test.step(device)


@pytest.mark.parametrize(("work", "line"), [
    (wrong, r"cpu\(1\) computes wrongly; expected the CPU's numbers within 0\.01 of the largest; found a "),
    (not_a_number, r"cpu\(1\) computes wrongly; .*found a difference of nan"),
    (failing, r"cpu\(1\) cannot run a training step; expected what the CPU gives; found CUDA: no kernel image")])
def test_a_card_that_computes_wrongly(untested, work, line):
    for _ in range(2):
        with pytest.raises(ConfigError, match=line):
            self_test.check(mx.cpu(1), work)
