"""mxnet_import: imports in fresh processes, with packages hidden, faked, or imported in another order."""
from __future__ import annotations

import importlib.util
import inspect
import os
import pkgutil
import subprocess
import sys
import textwrap
import warnings

import pytest
from conftest import ROOT

HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {name!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""


def python(code, folder=None, **environment):
    """Standard output of `code` in a fresh Python in which every warning is an error."""
    unset = {"OMP_NUM_THREADS", "GLUON_FT_PROCESSES_PER_MACHINE"}
    env = {k: v for k, v in os.environ.items() if k not in unset}
    env.update(environment)
    if folder is not None:
        env["PYTHONPATH"] = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True,
                          env=env, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def fake_torch(tmp_path):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text(
        "__version__ = '2.13.0'\nclass Tensor: pass\ndef add(a, b): return a + b\n")
    return tmp_path


def test_without_mxnet_the_error_says_which_to_install_and_why_there_are_two():
    out = python(HIDE.format(name="mxnet") + textwrap.dedent("""
        import gluon_ft
        try:
            gluon_ft.fit
        except ImportError as error:
            print(error)
        """))
    assert out.startswith("MXNet is not installed;")
    for package, extra in (("mxnet", "cpu"), ("mxnet-cu112", "cu112")):
        assert (f"pip install --no-deps {package}==1.9.1" if sys.version_info >= (3, 13)
                else f"pip install {package}==1.9.1 (or '.[{extra}]'") in out
    assert "there are two because mxnet and mxnet-cu112 install the same" in out


@pytest.mark.parametrize(("module", "name", "version", "error"), [
    ("numpy", "__version__", "3.0.1",
     "this NumPy is too new for MXNet 1.9.1; expected NumPy 1.21 to 2; found 3.0.1; pip install 'numpy>=1.21,<3'"),
    ("numpy", "__version__", "1.20.3",
     "this NumPy is too old for MXNet 1.9.1; expected NumPy 1.21 to 2; found 1.20.3; pip install 'numpy>=1.21,<3'"),
    ("platform", "python_version", "3.15.0a1",
     "this Python is too new for MXNet 1.9.1; expected Python 3.9 to 3.14; found 3.15.0a1; make a virtual environment "
     "with one that fits, for example python3.11 -m venv FOLDER"),
    ("platform", "python_version", "3.8.18",
     "this Python is too old for MXNet 1.9.1; expected Python 3.9 to 3.14; found 3.8.18; make a virtual environment "
     "with one that fits, for example python3.11 -m venv FOLDER")])
def test_a_python_or_numpy_that_does_not_fit(module, name, version, error):
    value = repr(version) if module == "numpy" else f"lambda: {version!r}"
    out = python(f"""
        import {module}
        {module}.{name} = {value}
        import gluon_ft
        for how in (lambda: gluon_ft.fit, lambda: __import__("mxnet")):
            try:
                how()
            except ImportError as error:
                print(error)
        """)
    assert out.splitlines() == [error] * 2


def test_python_3_13_installs_mxnet_without_its_own_dependencies(monkeypatch):
    from gluon_ft.runtime import mxnet_import

    monkeypatch.setattr(sys, "version_info", (3, 13, 0, "final", 0))
    assert "pip install --no-deps mxnet==1.9.1; with an NVIDIA GPU" in mxnet_import.which_mxnet()


def test_missing_dependency_of_mxnet_is_named():
    out = python(HIDE.format(name="requests") + textwrap.dedent("""
        import gluon_ft
        try:
            gluon_ft.fit
        except ImportError as error:
            print(error)
        """))
    assert out == "MXNet cannot be imported: No module named 'requests'; pip install requests"


def test_missing_dependency_of_gluoncv_is_named_and_nothing_half_imported_stays():
    out = python(HIDE.format(name="portalocker") + textwrap.dedent("""
        from gluon_ft.runtime import mxnet_import
        for how in (mxnet_import.import_gluoncv, lambda: __import__("gluoncv")):
            try:
                how()
            except ImportError as error:
                print(error)
            print([m for m in sys.modules if m.split(".")[0] == "gluoncv"])
        """))
    assert out.splitlines() == [
        "GluonCV cannot be imported: No module named 'portalocker'; pip install portalocker", "[]"] * 2


def test_missing_gluoncv(monkeypatch):
    from gluon_ft.runtime import mxnet_import

    monkeypatch.setattr(mxnet_import, "_find", lambda name: None)
    for name in [m for m in sys.modules if m.split(".")[0] == "gluoncv"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ImportError, match=r"^GluonCV is not installed; pip install gluoncv==0\.10\.5\.post0$"):
        mxnet_import.import_gluoncv()


@pytest.mark.parametrize("first, how", [
    ("import torch", "import gluoncv"),
    ("pass", "from gluon_ft.runtime import mxnet_import; gluoncv = mxnet_import.import_gluoncv()")])
def test_gluoncv_beside_torch_2(fake_torch, first, how):
    out = python(f"""
        import sys
        {first}
        import gluon_ft
        assert "gluoncv" not in sys.modules
        {how}
        from gluoncv.model_zoo import get_model
        assert ("torch" in sys.modules) is {first != "pass"}
        import torch
        print(torch.__version__, torch.add(1, 2), gluoncv.model_zoo.get_model is get_model)
        """, fake_torch)
    assert out == "2.13.0 3 True"


def test_gluoncv_leaves_pillow_strict():
    assert python("""
        from PIL import ImageFile
        import gluon_ft, gluoncv
        print(ImageFile.LOAD_TRUNCATED_IMAGES)
    """) == "False"


def test_gluoncv_keeps_its_files_and_source():
    import gluoncv

    spec = importlib.util.find_spec("gluoncv")
    assert gluoncv.__file__ == spec.origin
    assert "model_zoo" in inspect.getsource(gluoncv)
    assert len(pkgutil.get_data("gluoncv", "__init__.py")) > 100


def test_import_is_quiet_and_leaves_no_trace_but_what_mxnet_needs():
    out = python("""
        import os, sys, warnings
        import numpy
        before = list(warnings.filters)
        import gluon_ft, mxnet as mx
        from gluon_ft.runtime import processors
        assert warnings.filters == before
        assert not [m for m in ("gluoncv", "torch", "matplotlib") if m in sys.modules]
        assert not {"int", "float", "object"} & set(vars(numpy))
        assert int(os.environ["OMP_NUM_THREADS"]) == processors.usable_processors()
        print(mx.nd.array([1, 2]).sum().asscalar())
        """)
    assert out == "3.0"


def test_scipy_matrices_still_go_in_and_out():
    import mxnet as mx
    import scipy.sparse

    matrix = scipy.sparse.csr_matrix([[0, 2.0], [3.0, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mx.nd.sparse.array(matrix).asscipy().todense().tolist() == [[0, 2], [3, 0]]
        assert mx.nd.sparse.csr_matrix(([1.0], ([0], [1])), shape=(1, 2)).asnumpy().tolist() == [[0, 1]]
        assert mx.nd.array([1, 2]).asnumpy().tolist() == [1, 2]


def test_threads_are_the_usable_processors_unless_the_user_says_otherwise(monkeypatch):
    from gluon_ft.runtime import mxnet_import, processors

    monkeypatch.setattr(processors, "usable_processors", lambda: 6)
    for user, processes, threads in (("7", "1", "7"), ("", "1", "6"), (None, "2", "3"), (" ", "1000", "1")):
        monkeypatch.setenv("OMP_NUM_THREADS", user) if user is not None else monkeypatch.delenv("OMP_NUM_THREADS")
        monkeypatch.setenv("GLUON_FT_PROCESSES_PER_MACHINE", processes)
        mxnet_import.set_threads()
        assert os.environ["OMP_NUM_THREADS"] == threads


@pytest.mark.parametrize(("policy", "user", "expected"), [
    (None, None, "3000"), (None, "50", "50"), ("PASSIVE", None, None)])
def test_idle_threads_spin_briefly_unless_the_user_says_otherwise(monkeypatch, policy, user, expected):
    from gluon_ft.runtime import mxnet_import

    for name, value in (("OMP_WAIT_POLICY", policy), ("GOMP_SPINCOUNT", user)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    mxnet_import.set_threads()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


def test_mxnet_before_gluon_ft_warns_where_processors_would_idle():
    out = python("""
        import importlib.util, os, sys, types, warnings
        os.cpu_count = lambda: 2
        os.sched_getaffinity = lambda pid: {0, 1}
        sys.modules["mxnet"] = types.ModuleType("mxnet")
        folder = importlib.util.find_spec("gluon_ft").submodule_search_locations
        warnings.simplefilter("always")
        for user in ("", "1"):
            os.environ["OMP_NUM_THREADS"] = user
            # Without the package's own __init__, which needs a real MXNet.
            sys.modules["gluon_ft"] = types.ModuleType("gluon_ft")
            sys.modules["gluon_ft"].__path__ = folder
            with warnings.catch_warnings(record=True) as caught:
                from gluon_ft.runtime import mxnet_import
            print(mxnet_import.THREADS_TOO_LATE, *[w.message for w in caught])
            for name in [m for m in sys.modules if m.startswith("gluon_ft")]:
                del sys.modules[name]
        """)
    late, early = out.splitlines()
    assert late.startswith("True mxnet was imported before gluon_ft and uses half the processors: import gluon_ft")
    assert early == "False"


@pytest.mark.parametrize("message, remedy", [
    ("libGL.so.1: cannot open shared object file: No such file or directory",
     "pip uninstall opencv-python && pip install --force-reinstall opencv-python-headless, or apt-get install libgl1"),
    ("libgomp.so.1: cannot open shared object file", "apt-get install libgomp1")])
def test_missing_system_library_has_its_remedy(message, remedy):
    from gluon_ft.runtime import mxnet_import

    assert mxnet_import._remedy(ImportError(message, name="cv2")) == remedy


def test_remedy_names_the_package_not_the_module():
    from gluon_ft.runtime import mxnet_import

    assert mxnet_import._remedy(ModuleNotFoundError("x", name="yaml.reader")) == "pip install pyyaml"
    assert mxnet_import._remedy(ImportError("cannot import name 'x' from 'scipy'", name="scipy")) is None
