"""start_up: what happens when Python starts, and that pip installs and removes it."""
from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from conftest import ROOT

HOOKS = "[n for n in (getattr(f, '__name__', '') for f in sys.meta_path) if n in ('_GluonFtHook', '_Finder')]"


@pytest.fixture(scope="module")
def site_packages(tmp_path_factory):
    """A folder with gluon_ft.pth as setup.py writes it, and nothing else."""
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    value = next(node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "HOOK")
    line = eval(compile(ast.Expression(value), "setup.py", "eval"),  # noqa: S307
                {"Path": Path, "__file__": str(ROOT / "setup.py")})
    folder = tmp_path_factory.mktemp("site")
    (folder / "gluon_ft.pth").write_text(line)
    return folder


@pytest.fixture
def started(site_packages, tmp_path):
    """Runs code in a Python that has executed the .pth file, as Python itself does with those of site-packages."""
    def run(code, *, path=ROOT, **environment):
        env = {**os.environ, "PYTHONPATH": str(path), **environment}
        begin = ("import site, sys; sys.meta_path[:] = [f for f in sys.meta_path if 'GluonFt' not in str(f)]\n"
                 f"before = set(sys.modules); [site.addsitedir({str(site_packages)!r}) for _ in range(2)]\n")
        done = subprocess.run([sys.executable, "-W", "error", "-c", begin + code], capture_output=True, text=True,
                              check=False, env=env, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout.strip()

    return run


def test_start_up_loads_nothing(started):
    assert started(f"print(sorted(set(sys.modules) - before), {HOOKS})") == "[] ['_GluonFtHook']"


def test_mxnet_first_works_with_every_processor(started):
    out = started(f"""
import mxnet as mx
import os
from gluon_ft.runtime import mxnet_import, processors
import gluon_ft, numpy as np
assert np.concatenate([mx.nd.zeros((np.prod((2, 2)),))]).shape == (4,)
assert not mxnet_import.THREADS_TOO_LATE
assert os.environ["OMP_NUM_THREADS"] == str(processors.threads()), os.environ["OMP_NUM_THREADS"]
print({HOOKS})
""", OMP_NUM_THREADS="")
    assert out == "['_Finder']"


def test_gluon_ft_first_leaves_one_finder(started):
    out = started(f"import gluon_ft, importlib.util; importlib.util.find_spec('mxnet'); print({HOOKS})")
    assert out == "['_Finder']"


@pytest.mark.parametrize(("value", "there"), [("1", False), ("yes", False), ("0", True), ("", True)])
def test_it_can_be_turned_off(started, value, there):
    assert started(f"print(bool({HOOKS}))", GLUON_FT_NO_HOOK=value) == str(there)


def test_without_its_package_mxnet_is_left_alone(started, tmp_path):
    code = "from importlib.util import find_spec; print(type(find_spec('mxnet').loader).__name__)"
    hide = "sys.path[:] = [p for p in sys.path if not __import__('os').path.exists(p + '/gluon_ft')]\n"
    assert started(hide + code, path=tmp_path) == "SourceFileLoader"


@pytest.mark.slow
@pytest.mark.parametrize("how", [[], ["-e"]])
def test_pip_installs_and_removes_it(how, tmp_path):
    venv.create(tmp_path / "v", with_pip=True)
    python = tmp_path / "v" / ("Scripts" if os.name == "nt" else "bin") / "python"

    def run(*arguments):
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run([python, *arguments], capture_output=True, text=True, check=False, env=env, cwd=tmp_path)

    def finders():
        done = run("-c", f"import sys; print({HOOKS})")
        assert done.stderr == ""
        return done.stdout

    done = run("-m", "pip", "install", "--quiet", "--no-deps", *how, str(ROOT))
    if done.returncode != 0 and "No matching distribution found for setuptools" in done.stderr:
        pytest.skip("pip reaches no index to build a wheel with")
    assert done.returncode == 0, done.stderr
    assert finders() == "['_GluonFtHook']\n"
    packages = Path(run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert run("-c", "import mxnet as mx; print(mx.nd.ones((1,)).asscalar())").stdout == "1.0\n"
    assert run("-m", "pip", "uninstall", "--yes", "--quiet", "gluon-ft").returncode == 0
    assert finders() == "[]\n"
    assert not list(packages.glob("*gluon_ft*"))
