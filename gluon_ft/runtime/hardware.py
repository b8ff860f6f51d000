"""What this machine's processors and NVIDIA GPUs can do for MXNet 1.9.1, and Intel's matrix tiles switched on."""
from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

# Compute capabilities of the machine code in mxnet-cu112 1.9.1. It has no PTX, so code runs on GPUs of the same major
# and the same or a higher minor version only (CUDA C Programming Guide, "Binary Compatibility").
CUDA_CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))
# The oldest driver that runs CUDA 11.x programs (CUDA Compatibility, "Minor Version Compatibility").
OLDEST_DRIVER = 450
_GENERATIONS = {(3, 0): "Kepler", (5, 0): "Maxwell", (6, 0): "Pascal", (7, 0): "Volta", (7, 5): "Turing",
                (8, 0): "Ampere", (8, 9): "Ada", (9, 0): "Hopper", (10, 0): "Blackwell"}
_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
# From Linux's arch/x86/include/uapi/asm/prctl.h and arch/x86/include/asm/fpu/types.h.
_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA = 158, 0x1023, 18
ISA_VARIABLES = ("DNNL_MAX_CPU_ISA", "MKLDNN_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")
ISA = "AVX512_CORE_AMX"


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
    driver = _number(gpu["driver"].split(".")[0])
    if driver is not None and driver < OLDEST_DRIVER:
        return f"driver {gpu['driver']} is too old for CUDA 11.2: it needs {OLDEST_DRIVER}.80 or later"
    return None


def bfloat16_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The CPU's flags for bfloat16 arithmetic, sorted: 'avx512_bf16', 'amx_bf16' (x86), 'bf16' (ARM).

    Read from Linux's `cpuinfo`; an empty list on other systems.
    """
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        return []
    found = {word for line in text.splitlines() if line.lower().startswith(("flags", "features"))
             for word in line.partition(":")[2].split()}
    return sorted(found.intersection(_BFLOAT16_FLAGS))


def tiles_permitted() -> bool:
    """Asks Linux for the permission to use the tiles in this process, its threads and its forks; may be called again.

    Returns
    -------
    bool
        False where the processor has no tiles, or Linux refuses.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or "amx_bf16" not in bfloat16_flags():
        return False
    try:
        return ctypes.CDLL(None).syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA) == 0
    except (OSError, AttributeError):
        return False


def switch_on_tiles(first_use: Callable[[], None]) -> bool:
    """Lets oneDNN 2.4.4, which MXNet 1.9.1 contains, use Intel's matrix tiles (AMX) for bfloat16 in this process.

    It has the kernels, but uses them only if DNNL_MAX_CPU_ISA asks for them; and it does not request the permission
    that Linux demands of a process since 5.16. With the variable alone, a bfloat16 convolution ends in 'Illegal
    instruction' (Linux, Documentation/arch/x86/xstate.rst, "Using dynamically enabled XSTATE features in user space").

    The environment variable that does it is removed afterwards: programs started from here would inherit it, but not
    the permission, which ends with `exec`, and would crash. A value that the user has set stays, and decides
    (DNNL_MAX_CPU_ISA=ALL keeps the tiles off).

    Parameters
    ----------
    first_use : callable
        Runs one oneDNN operator. It must be the first one of the process: oneDNN reads the variable once.

    Returns
    -------
    bool
        Whether oneDNN will use them.
    """
    own = [os.environ[name] for name in ISA_VARIABLES if name in os.environ]
    if own:
        return any(ISA in value.upper() for value in own) and tiles_permitted()
    if not tiles_permitted():
        return False
    os.environ[ISA_VARIABLES[0]] = ISA
    try:
        first_use()
    finally:
        del os.environ[ISA_VARIABLES[0]]
    return True


def processor_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's model, as Linux's `cpuinfo` names it; else what Python knows of it."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(errors="replace"), re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()
