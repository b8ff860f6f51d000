"""old_names: who sees the names that NumPy has removed, and what they stand for."""
from __future__ import annotations

import os
import subprocess
import sys
import types

import mxnet as mx
import numpy as np
import pytest
from conftest import ROOT

from gluon_ft.runtime import mxnet_fixes, old_names

REMOVED = ("bool8", "int", "float", "object", "str", "complex", "product", "float_", "complex_", "NaN", "NAN", "INF",
           "Inf", "Infinity", "infty", "PINF", "NINF", "PZERO", "NZERO", "round_", "in1d", "msort", "row_stack",
           "trapz", "alltrue", "sometrue", "cumproduct", "unicode_", "string_", "asfarray", "find_common_type", "mirr",
           "npv", "pmt", "ppmt", "pv", "rate", "bool", "mat", "cast", "sctypes", "obj2sctype", "issubclass_", "nbytes",
           "safe_eval", "disp", "VisibleDeprecationWarning", "RankWarning", "ComplexWarning", "AxisError", "chararray")
PACKAGE = "import numpy\nSEEN = [n for n in {names!r} if hasattr(numpy, n)]\n"


@pytest.mark.parametrize("name", REMOVED)
def test_a_file_that_imports_mxnet_sees(name):
    assert getattr(np, name) is not None


def python(code, folder):
    """Standard output of `code` in a fresh Python that finds modules in `folder`, too."""
    return subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}).stdout


@pytest.fixture(scope="module")
def numpys_own(tmp_path_factory):
    """The names that this NumPy answers by itself."""
    return set(python(PACKAGE.format(names=REMOVED) + "print(*SEEN)", tmp_path_factory.mktemp("empty")).split())


def seen_by(module_name, filename, **names):
    """The removed names that a module finds, which has `names` in its namespace."""
    module = types.ModuleType(module_name)
    vars(module).update(names)
    exec(compile(PACKAGE.format(names=REMOVED), filename, "exec"), vars(module))  # noqa: S102
    return set(module.SEEN)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("module_name", "filename", "names", "seen"), [
    ("mxnet.numpy.utils", "/somewhere/file.py", {}, True), ("gluoncv.data", "/somewhere/file.py", {}, True),
    ("__main__", "/home/somebody/train.py", {"mx": mx}, True), ("common.fit", "fit.py", {"nd": mx.nd}, True),
    ("__main__", "/tmp/ipykernel_7/1.py", {"mx": mx}, True),
    ("mxnetlike", "/somewhere/file.py", {}, False), ("scipy.integrate", "/somewhere/file.py", {}, False),
    ("__main__", "/home/somebody/train.py", {"np": np}, False), ("__main__", "<stdin>", {"mx": mx}, False),
    ("gluon_ft.runtime.hardware", "/somewhere/file.py", {"mx": mx}, False)])
def test_who_sees_them(module_name, filename, names, seen, numpys_own):
    assert numpys_own < set(REMOVED)
    assert seen_by(module_name, filename, **names) == (set(REMOVED) if seen else numpys_own)


def test_another_package_in_the_same_process_is_not_fooled(tmp_path):
    (tmp_path / "other.py").write_text(PACKAGE.format(names=REMOVED))
    before, after = (python(f"{first}; import other; print(other.SEEN)", tmp_path)
                     for first in ("pass", "import gluon_ft, mxnet"))
    assert before == after


def test_numpys_own_answer_stays_for_names_that_never_were():
    with pytest.raises(AttributeError, match="module 'numpy' has no attribute 'never_was'"):
        _ = np.never_was


def test_they_are_installed_once():
    beneath = vars(np)["__getattr__"]
    old_names.install()
    assert vars(np)["__getattr__"] is beneath


@pytest.fixture
def old():
    """Every removed name's value as gluon_ft gives it, also where this NumPy still has its own."""
    return old_names.values(np)


@pytest.mark.parametrize(("name", "arguments", "expected"), [
    ("product", ([2, 3],), 6), ("cumproduct", ([2, 3],), [2, 6]), ("alltrue", ([1, 0],), False),
    ("sometrue", ([1, 0],), True), ("round_", (2.567, 1), 2.6), ("row_stack", (([1], [2]),), [[1], [2]]),
    ("in1d", ([[1, 2], [3, 1]], [1]), [True, False, False, True]), ("msort", ([[2, 1], [1, 2]],), [[1, 1], [2, 2]]),
    ("asfarray", ([1, 2], "float32"), [1.0, 2.0]), ("asfarray", ([1, 2], "int32"), [1.0, 2.0])])
def test_functions(old, name, arguments, expected):
    assert np.array_equal(old[name](*arguments), expected)
    assert np.asarray(old[name](*arguments)).dtype.kind == np.asarray(expected).dtype.kind


@pytest.mark.parametrize(("name", "arguments", "expected"), [
    ("obj2sctype", ("f4",), np.float32), ("obj2sctype", (np.zeros(1, "i8"),), np.int64),
    ("obj2sctype", ("no such type", "none"), "none"), ("obj2sctype", (list,), np.object_),
    ("sctype2char", (np.float32,), "f"), ("issctype", (np.float32,), True), ("issctype", (1.5,), False),
    ("issctype", (list,), False), ("issubclass_", (np.float32, np.floating), True), ("issubclass_", (1, int), False),
    ("issubsctype", ("f4", np.floating), True), ("maximum_sctype", ("i2",), np.int64), ("safe_eval", ("[1]",), [1])])
def test_functions_of_types(old, name, arguments, expected):
    assert old[name](*arguments) == expected


def test_tables_of_types(old):
    assert old["cast"]["float32"]([1, 2]).dtype == old["cast"][np.float32](1).dtype == np.float32
    assert (old["nbytes"]["f8"], old["nbytes"][np.int16]) == (8, 2)
    assert np.float16 in old["sctypes"]["float"] and np.uint8 in old["sctypes"]["uint"]


def test_numpys_lib_has_its_old_functions_for_old_code_only(numpys_own):
    assert np.lib.pad([1], 1, "constant").tolist() == [0, 1, 0]
    own = python("import numpy as np; print(hasattr(np.lib, 'pad'))", ROOT)
    with pytest.raises(AttributeError, match=r"module 'numpy\.lib' has no attribute 'never_was'"):
        _ = np.lib.never_was
    others = types.ModuleType("others")
    exec(compile("import numpy\nSEEN = hasattr(numpy.lib, 'pad')", "/somewhere/others.py", "exec"),  # noqa: S102
         vars(others))
    assert str(others.SEEN) == own.strip()


@pytest.mark.parametrize(("arrays", "scalars", "expected"), [
    (["f4"], ["i8"], "f4"), (["f4"], ["f8"], "f4"), (["i4"], ["f8"], "f8"), (["f4", "i8"], [], "f8"),
    ([], ["i4", "f4"], "f8"), (["f4"], ["c8"], "c8")])
def test_find_common_type(old, arrays, scalars, expected):
    """As in the docstring of the function that NumPy 1.25 deprecated."""
    assert old["find_common_type"](arrays, scalars) == np.dtype(expected)


def test_constants_and_types(old):
    assert (old["PZERO"], np.signbit(old["NZERO"]), old["NINF"]) == (0, True, -np.inf)
    assert (old["float_"], old["bool8"], old["int"]) == (np.float64, np.bool_, int)


def test_financial_functions_say_where_they_went(old):
    with pytest.raises(RuntimeError, match=r"numpy\.npv left NumPy in 1\.20; the package numpy-financial has it"):
        old["npv"](0.1, [1, 2])


@pytest.mark.parametrize(("value", "text"), [
    (np.int64(6), "6"), ((np.int64(6),), "(6,)"), ([np.float32(0.1), 1], "[0.1, 1]"),
    ((2, (np.int8(1), 3)), "(2, (1, 3))"),
    ({"a": np.float64(0.5)}, "{'a': 0.5}"), ((np.bool_(True), None), "(True, None)"), ((np.str_("a"),), "('a',)"),
    ("np.int64(6)", "np.int64(6)"), ("(np.a,)", "(np.a,)"), (np.dtype("float32"), "float32"), (True, "True")])
def test_parameters_of_operators_as_text(value, text):
    assert mxnet_fixes.plain_text(value) == text


def test_arrays_reach_numpy_as_copies_only():
    array = mx.nd.ones((2,))
    copied = np.array(array, dtype="int32")
    copied[0] = 5
    assert (copied.dtype, array.asnumpy().tolist()) == (np.dtype("int32"), [1, 1])
    with pytest.raises(ValueError, match="an NDArray reaches NumPy as a copy only: leave copy=False out"):
        array.__array__(copy=False)
