"""What this machine's processors can do for MXNet 1.9.1, and Intel's matrix tiles switched on."""
from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path

_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")
# From Linux's arch/x86/include/uapi/asm/prctl.h and arch/x86/include/asm/fpu/types.h.
_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA = 158, 0x1023, 18
ISA_VARIABLES = ("DNNL_MAX_CPU_ISA", "MKLDNN_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")
ISA = "AVX512_CORE_AMX"


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
