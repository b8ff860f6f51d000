"""hardware: bfloat16 flags of the CPU."""
from __future__ import annotations

from gluon_ft.runtime import hardware


def test_bfloat16_flags(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: avx512_bf16 in a name\nflags\t\t: fpu avx512_bf16 amx_bf16 avx2\n")
    assert hardware.bfloat16_flags(cpuinfo) == ["amx_bf16", "avx512_bf16"]
    cpuinfo.write_text("Features\t: fp asimd bf16\n")
    assert hardware.bfloat16_flags(cpuinfo) == ["bf16"]
    cpuinfo.write_text("flags : fpu avx2\n")
    assert hardware.bfloat16_flags(cpuinfo) == []
    assert hardware.bfloat16_flags(tmp_path / "none") == []
