"""Switches on Intel's matrix tiles (AMX) for bfloat16, in Linux and in oneDNN 2.4.4, which MXNet 1.9.1 contains.

oneDNN 2.4 has the kernels, but uses them only if DNNL_MAX_CPU_ISA asks for them; and it does not request the permission
that Linux demands of a process since 5.16. With the variable alone, a bfloat16 convolution ends in 'Illegal
instruction' (Linux, Documentation/arch/x86/xstate.rst, "Using dynamically enabled XSTATE features in user space").
"""
from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Callable

from gluon_ft.runtime import hardware

# From Linux's arch/x86/include/uapi/asm/prctl.h and arch/x86/include/asm/fpu/types.h.
_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA = 158, 0x1023, 18
VARIABLES = ("DNNL_MAX_CPU_ISA", "MKLDNN_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA")
ISA = "AVX512_CORE_AMX"


def permitted() -> bool:
    """Asks Linux for the permission to use the tiles in this process, its threads and its forks; may be called again.

    Returns
    -------
    bool
        False where the processor has no tiles, or Linux refuses.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64" or "amx_bf16" not in hardware.bfloat16_flags():
        return False
    try:
        return ctypes.CDLL(None).syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILE_DATA) == 0
    except (OSError, AttributeError):
        return False


def switch_on(first_use: Callable[[], None]) -> bool:
    """Lets oneDNN use the tiles in this process.

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
    own = [os.environ[name] for name in VARIABLES if name in os.environ]
    if own:
        return any(ISA in value.upper() for value in own) and permitted()
    if not permitted():
        return False
    os.environ[VARIABLES[0]] = ISA
    try:
        first_use()
    finally:
        del os.environ[VARIABLES[0]]
    return True
