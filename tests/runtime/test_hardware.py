"""hardware: which GPUs mxnet-cu112 runs on, what nvidia-smi says, bfloat16 flags of the CPU."""
from __future__ import annotations

import pytest

from gluon_ft.runtime import hardware


@pytest.mark.parametrize("capability, name, runs", [
    ((3, 7), "Kepler", False), ((5, 2), "Maxwell", True), ((6, 1), "Pascal", True), ((7, 0), "Volta", True),
    ((7, 5), "Turing", True), ((8, 0), "Ampere", True), ((8, 6), "Ampere", True), ((8, 9), "Ada", True),
    ((9, 0), "Hopper", False), ((10, 0), "Blackwell", False), ((12, 0), "Blackwell", False)])
def test_capabilities(capability, name, runs):
    assert (hardware.generation(capability), hardware.runs_mxnet(capability)) == (name, runs)
    obstacle = hardware.gpu_obstacle({"capability": capability, "driver": "535.1"})
    assert (obstacle is None) is runs
    if not runs:
        assert obstacle.startswith(f"{name} (compute capability {capability[0]}.{capability[1]})")


def test_old_driver():
    gpu = {"capability": (7, 5), "driver": "418.87.00"}
    assert hardware.gpu_obstacle(gpu) == "driver 418.87.00 is too old for CUDA 11.2: it needs 450.80 or later"
    assert hardware.gpu_obstacle({"capability": None, "driver": "[N/A]"}) is None


def nvidia_smi(folder, body):
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


def test_nvidia_smi(tmp_path):
    program = nvidia_smi(tmp_path, "echo 'NVIDIA H100 PCIe, 535.104.05, 81559 MiB, 9.0'\n"
                                   "echo 'Tesla T4, 535.104.05, 15360 MiB, 7.5'")
    gpus = hardware.nvidia_gpus(program)
    assert [g["capability"] for g in gpus] == [(9, 0), (7, 5)]
    assert gpus[1] == {"name": "Tesla T4", "driver": "535.104.05", "memory_mib": 15360, "capability": (7, 5)}


def test_nvidia_smi_that_does_not_know_the_capability(tmp_path):
    program = nvidia_smi(tmp_path, "case $1 in *compute_cap*) echo 'Field \"compute_cap\" is not valid' >&2; exit 2;;\n"
                                   "*) echo 'Tesla K80, 418.87.00, 11441 MiB';; esac")
    assert hardware.nvidia_gpus(program) == [
        {"name": "Tesla K80", "driver": "418.87.00", "memory_mib": 11441, "capability": None}]


def test_no_nvidia_smi_or_one_that_fails(tmp_path):
    assert hardware.nvidia_gpus(str(tmp_path / "none")) == []
    assert hardware.nvidia_gpus(nvidia_smi(tmp_path, "echo 'NVIDIA-SMI has failed'; exit 9")) == []


def test_bfloat16_flags(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: avx512_bf16 in a name\nflags\t\t: fpu avx512_bf16 amx_bf16 avx2\n")
    assert hardware.bfloat16_flags(cpuinfo) == ["amx_bf16", "avx512_bf16"]
    cpuinfo.write_text("Features\t: fp asimd bf16\n")
    assert hardware.bfloat16_flags(cpuinfo) == ["bf16"]
    cpuinfo.write_text("flags : fpu avx2\n")
    assert hardware.bfloat16_flags(cpuinfo) == []
    assert hardware.bfloat16_flags(tmp_path / "none") == []
