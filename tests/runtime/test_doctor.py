"""doctor: what it finds here, and in environments where something is missing or twice there."""
from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from gluon_ft.cli.main import doctor as command
from gluon_ft.io import paths
from gluon_ft.runtime import doctor, mxnet_import
from gluon_ft.runtime.gpu import cards, libraries


def found(name, findings):
    return next(f for f in findings if f.name == name)


@pytest.fixture
def versions(monkeypatch):
    """Sets what `importlib.metadata` says about single packages; None for not there."""
    real, told = importlib.metadata.version, {}

    def version(name):
        if name in told and told[name] is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return told.get(name) or real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    return told


def test_this_environment_is_usable_and_json_is_the_last_line(versions):
    result = CliRunner().invoke(command, ["--json"])
    assert result.exit_code == 0, result.output
    *text, last = result.stdout.splitlines()
    report = json.loads(last)
    assert (report["usable"], report["problems"]) == (True, 0)
    values = {f["name"]: f["value"] for f in report["findings"]}
    assert values["gluoncv"] == "0.10.5.post0, which calls itself 0.11.0"
    assert values["training step"].startswith("right, ")
    assert "OPENMP" in values["features"]
    assert values["folder"] == os.environ["GLUON_FT_HOME"]
    assert set(report["findings"][0]) == {"topic", "name", "value", "level", "remedy"}
    assert text[0] == "versions" and text[-1] == "gluon_ft can be used"
    columns = {line.index(str(values[name])) for name in ("python", "seen") for line in text
               if line.strip().startswith(name)}
    assert len(columns) == 1


def test_a_problem_ends_with_status_1_and_its_remedy(versions):
    versions["pooch"] = None
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert any(line.split() == ["!", "pooch", "not", "there"] for line in lines)
    assert any(line.split() == ["!", "pooch", "pip", "install", "pooch"] for line in lines)
    assert lines[-1] == "gluon_ft cannot be used as it should: 1 problem"


@pytest.mark.parametrize(("version", "level", "remedy"), [
    ("1.20.3", "problem", "pip install 'numpy>=1.21,<3'"), ("1.21.0", "ok", None), ("2.1.0", "ok", None),
    ("3.0.0", "problem", "pip install 'numpy>=1.21,<3'")])
def test_numpy(versions, version, level, remedy):
    versions["numpy"] = version
    finding = found("numpy", doctor._python())
    assert (finding.level, finding.remedy) == (level, remedy)


def test_both_opencvs(versions):
    versions["opencv-python"], versions["opencv-python-headless"] = "4.11.0.86", "4.11.0.86"
    finding = found("opencv", doctor._opencv())
    assert finding.level == "hint"
    assert finding.value == ["opencv-python 4.11.0.86", "opencv-python-headless 4.11.0.86"]
    assert "keep one" in finding.remedy and "opencv-python-headless" in finding.remedy


def test_opencv_without_libgl_and_no_opencv(versions, monkeypatch):
    def fail(name):
        raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    versions.update({"opencv-python": "4.11.0.86", "opencv-python-headless": None})
    finding = found("opencv", doctor._opencv())
    assert finding.level == "problem"
    assert finding.remedy.startswith("libGL.so.1: cannot open") and "apt-get install libgl1" in finding.remedy
    versions["opencv-python"] = None
    finding = found("opencv", doctor._opencv())
    for numpy, below in (("1.26.4", "4.12"), ("2.4.6", "5")):
        versions["numpy"] = numpy
        assert found("opencv", doctor._opencv()).remedy == f"pip install 'opencv-python-headless<{below}'"
    assert finding.value is None


def test_both_mxnets(versions):
    versions["mxnet-cu112"] = "1.9.1"
    finding = found("package", doctor._mxnet())
    assert finding.level == "problem"
    assert "pip uninstall mxnet mxnet-cu112" in finding.remedy


@pytest.mark.parametrize(("name", "capability", "words"), [
    ("H100", (9, 0), "Hopper (compute capability 9.0): mxnet-cu112 1.9.1 carries code for Maxwell to Ada"),
    ("RTX 5090", (12, 0), "Blackwell (compute capability 12.0): mxnet-cu112 1.9.1 carries code for Maxwell to Ada")])
def test_a_card_that_mxnet_cannot_use(monkeypatch, name, capability, words):
    gpus = [{"name": name, "driver": "570.1", "memory_mib": 81559, "capability": capability},
            {"name": "T4", "driver": "570.1", "memory_mib": 15360, "capability": (7, 5)}]
    monkeypatch.setattr(cards, "nvidia_gpus", lambda: gpus)
    findings = list(doctor._gpus())
    assert found("GPUs", findings).value.endswith("2 seen by NVIDIA's driver")
    one = found("gpu 0", findings)
    assert (one.level, one.value) == ("hint", f"{name}, 81559 MiB, compute capability {capability[0]}.{capability[1]}, "
                                              "driver 570.1")
    assert one.remedy.startswith(words)
    assert one.remedy.endswith("; use the CPU, another card, or export the model to ONNX (gluon-ft export --onnx) and "
                               "run it there")
    assert "pip install '.[cu112]'" in found("gpu 1", findings).remedy


@pytest.fixture
def cuda(versions, monkeypatch):
    """As if mxnet-cu112 were installed, and every library could be loaded but those that are named in the set."""
    versions["mxnet-cu112"], missing = "1.9.1", set()

    def load(name, *_, **__):
        if Path(name).name in missing:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return object()

    monkeypatch.setattr(libraries.ctypes, "CDLL", load)
    monkeypatch.setattr(cards, "driver_version", lambda: "535.104.05")
    return missing


@pytest.mark.parametrize("library", libraries.LIBRARIES, ids=lambda library: library.soname)
def test_a_library_of_cuda_that_is_missing(cuda, library):
    cuda.add(library.soname)
    findings = list(doctor._cuda())
    assert [f.name for f in findings if f.level != "ok"] == [library.soname]
    finding = found(library.soname, findings)
    assert (finding.level, finding.value) == ("problem", None)
    assert finding.remedy.startswith(f"pip install '{library.package}")
    assert "cannot open shared object" in finding.remedy


@pytest.mark.parametrize(("version", "level", "remedy"), [
    ("535.104.05", "ok", None), (None, "hint", "install NVIDIA's driver, without which nothing but the CPU computes"),
    ("418.87.00", "hint", "driver 418.87.00 is too old for CUDA 11.2: it needs 450.80 or later; update it, or use the "
     "CPU, another card, or export the model to ONNX (gluon-ft export --onnx) and run it there")])
def test_drivers(cuda, monkeypatch, version, level, remedy):
    monkeypatch.setattr(cards, "driver_version", lambda: version)
    finding = found("driver", doctor._cuda())
    assert (finding.value, finding.level, finding.remedy) == (version, level, remedy)


def test_no_library_of_the_driver(cuda):
    cuda.add("libcuda.so.1")
    finding = found("libcuda.so.1", doctor._cuda())
    assert finding.level == "problem"
    assert finding.remedy.startswith("install NVIDIA's driver; on a machine without a GPU")


def test_nothing_of_cuda_with_mxnet_for_the_cpu(versions):
    versions["mxnet-cu112"] = None
    assert list(doctor._cuda()) == []


@pytest.mark.parametrize("user, late, level, text", [
    ("", False, "ok", "4, set by gluon_ft"), ("4", False, "ok", "4, set by you"), ("2", False, "hint", "2, set by you"),
    ("", True, "hint", "MXNet was imported before it was set")])
def test_threads(monkeypatch, user, late, level, text):
    monkeypatch.setenv("OMP_NUM_THREADS", user or "4")
    monkeypatch.setattr(mxnet_import, "THREADS_OF_USER", user)
    monkeypatch.setattr(mxnet_import, "THREADS_TOO_LATE", late)
    finding = doctor._threads(4)
    assert (finding.level, finding.value) == (level, text)


def test_cache_folder_that_cannot_be(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "file" / "cache"))
    finding = found("folder", doctor._cache())
    assert finding.level == "problem"
    assert finding.remedy == f"{tmp_path / 'file'} is not a folder that you may write to; set GLUON_FT_HOME"
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path / "not" / "yet"))
    findings = list(doctor._cache())
    assert found("folder", findings).level == "ok"
    assert found("free disk", findings).value.endswith(" GB")
    assert not (tmp_path / "not").exists()


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_the_kernels_own_file_systems_are_no_place_for_a_cache(monkeypatch):
    monkeypatch.setenv(paths.HOME_VARIABLE, "/proc/cache")
    assert found("folder", doctor._cache()).remedy == (
        "/proc is not a folder that you may write to; set GLUON_FT_HOME")


def test_little_disk_is_a_hint(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: _Usage())
    assert found("free disk", doctor._cache()).level == "hint"


class _Usage:
    total = 5e11
    free = 1.2e9


def test_onnx_versions(versions):
    for version, level in (("1.14.1", "ok"), ("1.18.0", "ok"), ("1.19.0", "hint"), (None, "hint")):
        versions["onnx"] = version
        finding = found("onnx", doctor._optional())
        assert (finding.level, finding.remedy is None) == (level, level == "ok")


def test_heic_needs_a_package_of_its_own(versions):
    for version, level in (("1.1.0", "ok"), (None, "hint")):
        versions["pillow-heif"] = version
        finding = found("pillow-heif", doctor._optional())
        assert (finding.level, finding.remedy is None) == (level, level == "ok")


def test_commands_without_mxnet():
    """`gluon-ft doctor` still reports; any other command is one line."""
    hide = """
        import sys
        class Hide:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "mxnet":
                    raise ModuleNotFoundError("No module named 'mxnet'", name="mxnet")
        sys.meta_path.insert(0, Hide())
        from gluon_ft.cli.main import main
        sys.argv = ["gluon-ft", {arguments}]
        main(prog_name="gluon-ft")
        """
    def run(arguments):
        return subprocess.run([sys.executable, "-c", textwrap.dedent(hide.replace("{arguments}", arguments))],
                              capture_output=True, text=True, check=False)

    done = run("'doctor', '--json'")
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout.splitlines()[-1])
    package = next(f for f in report["findings"] if f["name"] == "package")
    assert package["level"] == "problem" and package["remedy"].startswith("MXNet is not installed;")
    done = run("'predict', 'x', 'y'")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: MXNet is not installed;") and done.stderr.count("\n") == 1
