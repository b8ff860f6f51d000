"""Which NVIDIA cards there are, what their driver is, and whether mxnet-cu112 1.9.1 runs on them."""
from __future__ import annotations

import ctypes
import functools
import re
import subprocess
from pathlib import Path
from typing import Any

from gluon_ft.runtime.gpu import libraries

# Compute capabilities of the machine code in mxnet-cu112 1.9.1. It has no PTX, so code runs on GPUs of the same major
# and the same or a higher minor version only (CUDA C Programming Guide, "Binary Compatibility").
CUDA_CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
# The oldest driver that runs CUDA 11.x programs (CUDA Compatibility, "Minor Version Compatibility").
OLDEST_DRIVER = 450
INSTEAD = "use the CPU, another card, or export the model to ONNX (gluon-ft export --onnx) and run it there"
_GENERATIONS = {(3, 0): "Kepler", (5, 0): "Maxwell", (6, 0): "Pascal", (7, 0): "Volta", (7, 5): "Turing",
                (8, 0): "Ampere", (8, 9): "Ada", (9, 0): "Hopper", (10, 0): "Blackwell"}
_VERSION_FILE = Path("/proc/driver/nvidia/version")
# CUdevice_attribute of cuda.h.
_MAJOR, _MINOR = 75, 76


def nvidia_gpus(program: str = "nvidia-smi") -> list[dict]:
    """The GPUs that NVIDIA's driver sees: name, capability ((major, minor) or None), driver, memory (MiB).

    Asks `nvidia-smi`; an empty list where there is none, or it does not answer within 20 seconds.
    """
    fields = ["name", "driver_version", "memory.total", "compute_cap"]
    # Drivers before 510 do not know compute_cap, and refuse the whole query.
    lines = _query(program, fields) or [f"{line}, " for line in _query(program, fields[:-1])]
    gpus = []
    for line in lines:
        name, driver, memory, capability = (part.strip() for part in line.split(","))
        gpus.append({"name": name, "driver": driver, "memory_mib": _number(memory.split(" ")[0]),
                     "capability": _capability(capability)})
    return gpus


def _query(program: str, fields: list[str]) -> list[str]:
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line for line in done.stdout.splitlines() if line.count(",") == len(fields) - 1]


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _capability(text: str) -> tuple[int, int] | None:
    major, _, minor = text.partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else None


def driver_version(file: Path = _VERSION_FILE, program: str = "nvidia-smi") -> str | None:
    """The version of NVIDIA's driver, such as '535.104.05'; None where there is none."""
    try:
        found = re.search(r"Kernel Module\D*?(?:x86_64)?\s+(\d+\.\d+(?:\.\d+)?)", file.read_text(errors="replace"))
    except OSError:
        found = None
    if found:
        return found[1]
    return next((gpu["driver"] for gpu in nvidia_gpus(program)), None)


def visible(driver: Any = None) -> list[dict]:
    """The cards as CUDA numbers them, and so MXNet, after CUDA_VISIBLE_DEVICES: name, capability, driver, memory (MiB).

    Asks the driver's library. Where it is not there or does not answer, an empty list.

    driver : its library, by default libcuda.so.1.
    """
    try:
        driver = ctypes.CDLL(libraries.DRIVER) if driver is None else driver
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return []
        version = driver_version() or ""
        return [{**_described(driver, number), "driver": version} for number in range(count.value)]
    except (OSError, AttributeError):
        return []


def _described(driver, number) -> dict:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.c_size_t()
    parts = [ctypes.c_int(), ctypes.c_int()]
    failed = driver.cuDeviceGet(ctypes.byref(device), number)
    failed = failed or any(driver.cuDeviceGetAttribute(ctypes.byref(part), which, device)
                           for part, which in zip(parts, (_MAJOR, _MINOR)))
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    return {"name": name.value.decode(errors="replace"), "memory_mib": memory.value >> 20,
            "capability": None if failed else (parts[0].value, parts[1].value)}


@functools.lru_cache(None)
def _known() -> list[dict]:
    return visible()


def obstacle_of(number: int) -> str | None:
    """Why MXNet cannot use the card that it calls gpu(number); None where it can, or where that is not known."""
    known = _known()
    return gpu_obstacle(known[number]) if number < len(known) else None


def generation(capability: tuple[int, int]) -> str:
    """NVIDIA's name for a compute capability: (8, 6) -> 'Ampere'; for one newer than known, the newest known."""
    return next((name for least, name in sorted(_GENERATIONS.items(), reverse=True) if capability >= least), "older")


def runs_mxnet(capability: tuple[int, int]) -> bool:
    """Whether mxnet-cu112 1.9.1 has machine code for a GPU of this compute capability."""
    return any(capability[0] == major and capability[1] >= minor for major, minor in CUDA_CODE)


def gpu_obstacle(gpu: dict) -> str | None:
    """Why mxnet-cu112 1.9.1 cannot use a GPU of `nvidia_gpus()`; None where it can, or where that is not known."""
    capability = gpu["capability"]
    if capability is not None and not runs_mxnet(capability):
        return (f"{generation(capability)} (compute capability {capability[0]}.{capability[1]}): mxnet-cu112 1.9.1 "
                "carries code for Maxwell to Ada (5.0 to 8.9) only, and nothing that a driver could translate")
    return old_driver(gpu["driver"])


def old_driver(version: str) -> str | None:
    """What is wrong with a driver that is too old for CUDA 11.2; None for the others."""
    number = _number(version.split(".")[0])
    if number is not None and number < OLDEST_DRIVER:
        return f"driver {version} is too old for CUDA 11.2: it needs {OLDEST_DRIVER}.80 or later"
    return None
