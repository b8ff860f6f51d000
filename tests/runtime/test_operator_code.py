"""operator_code: compiled code is kept, used again, and not taken from where others may write."""
from __future__ import annotations

import os
import sys

import pytest
from test_mxnet_import import python

from gluon_ft.runtime.quick_import import operator_code

TEXT = "def located(number=1):\n    return number + {}\n"
pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no owner here")


@pytest.fixture
def kept(tmp_path):
    """A file with the code of TEXT, as a process leaves it."""
    codes = operator_code.Codes()
    codes.of(TEXT.format(140_000_000_001), 140_000_000_001)
    operator_code.write(tmp_path / "bytecode" / "codes", codes.used)
    return tmp_path / "bytecode" / "codes"


def test_code_is_kept_and_not_compiled_again(kept):
    codes = operator_code.Codes(operator_code.read(kept))
    for address in (140_000_000_001, 150_000_000_002):
        names = {}
        exec(codes.of(TEXT.format(address), address), names)  # noqa: S102
        assert names["located"](4) == 4 + address and names["located"].__defaults__ == (1,)
    assert not codes.is_new and len(codes.used) == 1
    codes.of(TEXT.format(3) + "\n", 140_000_000_001)
    assert codes.is_new and len(codes.used) == 2
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("change", [
    lambda path: path.unlink(),
    lambda path: path.chmod(0o620),
    lambda path: path.parent.chmod(0o777),
    lambda path: path.write_bytes(path.read_bytes()[:-1]),
    lambda path: path.write_bytes(b"\0" * 32 + path.read_bytes()[32:]),
    lambda path: path.write_bytes(b"")], ids=["none", "writable", "folder writable", "short", "other digest", "empty"])
def test_what_is_missing_damaged_or_open_to_others_is_not_read(kept, change):
    assert operator_code.read(kept)
    change(kept)
    assert operator_code.read(kept) == {}


def test_another_users_file_is_not_read(kept, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345678)
    assert operator_code.read(kept) == {}


def test_a_folder_that_others_may_write_to_gets_no_file(tmp_path):
    tmp_path.chmod(0o777)
    operator_code.write(tmp_path / "codes", {})
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_place_nothing_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("GLUON_FT_HOME", "/dev/null")
    assert operator_code.file() is None
    (tmp_path / "a file").touch()
    operator_code.write(tmp_path / "a file" / "codes", {})
    assert operator_code.read(tmp_path / "a file" / "codes") == {}


@pytest.mark.slow
def test_operators_are_the_same_from_the_file(tmp_path):
    code = """
        import inspect, os
        import gluon_ft, mxnet as mx
        from gluon_ft.runtime.quick_import import operator_code
        path = operator_code.file()
        for module in (mx.nd, mx.sym, mx.np, mx.npx, mx.nd.contrib, mx.nd._internal):
            for name, f in sorted(vars(module).items()):
                if inspect.isfunction(f) and f.__code__.co_filename == "<string>":
                    constants = [c for c in f.__code__.co_consts if not isinstance(c, int) or c < 1 << 32]
                    print(name, f.__module__, f.__code__.co_code.hex(), constants,
                          f.__code__.co_firstlineno, inspect.signature(f), hash(f.__doc__))
        print(mx.nd.Convolution(mx.nd.ones((1, 1, 3, 3)), mx.nd.ones((2, 1, 3, 3)), num_filter=2, kernel=(3, 3),
                                no_bias=True).asnumpy().ravel())
        print(path.stat().st_mtime_ns if path.exists() else "none")
        """
    variables = {"GLUON_FT_HOME": str(tmp_path), "PYTHONHASHSEED": "0"}
    none = python(code, **variables, PYTHONDONTWRITEBYTECODE="1").splitlines()
    assert none[-1] == "none" and len(none) > 1000
    first, second = (python(code, **variables, PYTHONDONTWRITEBYTECODE="").splitlines() for _ in range(2))
    assert first[-1].isdigit() and first[-1] == second[-1]
    texts = [[line for line in lines[:-1] if " at 0x" not in line] for lines in (none, first, second)]
    assert texts[0] == texts[1] == texts[2] and len(texts[0]) > 1000


def test_optimised_python_keeps_its_own(monkeypatch, tmp_path):
    """It leaves out assertions."""
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path))
    assert operator_code.file().name == f"mxnet.{sys.implementation.cache_tag}.opt-{sys.flags.optimize}"
