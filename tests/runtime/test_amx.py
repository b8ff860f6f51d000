"""Matrix tiles: asked for once, used, and not passed on to programs that are started."""
import os
import subprocess
import sys

import pytest

from gluon_ft.runtime import hardware

CHILD = """
import os, subprocess, sys
import gluon_ft
from gluon_ft.runtime import hardware
import mxnet as mx
on = hardware.switch_on_tiles(lambda: mx.nd.Activation(mx.nd.ones((1, 1)), act_type="relu").wait_to_read())
from mxnet.contrib import amp
cast = lambda x: mx.nd.amp_cast(x, dtype=amp.amp.bfloat16)
y = mx.nd.Convolution(cast(mx.nd.ones((2, 16, 8, 8))), cast(mx.nd.ones((16, 16, 3, 3))), kernel=(3, 3), num_filter=16,
                      no_bias=True)
result = mx.nd.amp_cast(y, dtype="float32").asnumpy()
assert (result == 144).all()
print("on" if on else "off", os.environ.get("DNNL_MAX_CPU_ISA"))
"""

needs_tiles = pytest.mark.skipif(not hardware.tiles_permitted(), reason="no matrix tiles, or Linux does not let this "
                                 "process use them")


def _run(**variables):
    clean = {k: v for k, v in os.environ.items() if k not in hardware.ISA_VARIABLES}
    clean.update({"DNNL_VERBOSE": "1", **variables})
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", CHILD], env=clean, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_tiles
def test_bfloat16_uses_the_tiles_and_the_variable_is_taken_back():
    text = _run()
    assert "amx_bf16,forward" in text and "on None" in text


@needs_tiles
def test_a_variable_of_the_users_own_is_followed():
    text = _run(DNNL_MAX_CPU_ISA="AVX512_CORE_BF16")
    assert "amx_bf16,forward" not in text and "off AVX512_CORE_BF16" in text
    assert "on AVX512_CORE_AMX" in _run(DNNL_MAX_CPU_ISA="AVX512_CORE_AMX")


def test_without_tiles_nothing_is_set_or_run(monkeypatch):
    monkeypatch.setattr(hardware, "bfloat16_flags", lambda: ["avx512_bf16"])
    for name in hardware.ISA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert not hardware.switch_on_tiles(lambda: pytest.fail("was run"))
    assert not set(hardware.ISA_VARIABLES) & set(os.environ)


def test_the_variable_is_taken_back_after_a_failure(monkeypatch):
    monkeypatch.setattr(hardware, "tiles_permitted", lambda: True)
    for name in hardware.ISA_VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def fail():
        assert os.environ["DNNL_MAX_CPU_ISA"] == hardware.ISA
        raise RuntimeError("no")
    with pytest.raises(RuntimeError):
        hardware.switch_on_tiles(fail)
    assert "DNNL_MAX_CPU_ISA" not in os.environ
