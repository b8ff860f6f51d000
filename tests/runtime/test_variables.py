"""Junk in an environment variable that MXNet reads: one line before MXNet is imported, where MXNet ends the process."""
from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gluon_ft.errors import ConfigError
from gluon_ft.runtime import mxnet_import


@pytest.mark.parametrize(("name", "value"), [
    *(("OMP_NUM_THREADS", value) for value in ("abc", "0", "-3", "2.5", "4,2", "99999999999", "9999", "٣", "1e2")),
    ("MXNET_CPU_WORKER_NTHREADS", "abc"), ("MXNET_CPU_WORKER_NTHREADS", "-1"), ("MXNET_OMP_MAX_THREADS", "two"),
    ("MXNET_MP_WORKER_NTHREADS", "q"), ("MXNET_CPU_PRIORITY_NTHREADS", "x"), ("MXNET_ENGINE_TYPE", "Naive"),
    ("MXNET_EXEC_BULK_EXEC_TRAIN", "abc"), ("MXNET_MKLDNN_ENABLED", "on"), ("MXNET_KVSTORE_BIGARRAY_BOUND", "1e6"),
    ("MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN", "many"), ("DMLC_ROLE", "abc"), ("DMLC_NUM_WORKER", "\x1b[2J")])
def test_a_value_that_mxnet_cannot_read_is_refused(name, value):
    with pytest.raises(ConfigError, match=f"the environment variable {name} cannot be read; expected .*; found '") as e:
        mxnet_import.check_variables({name: value})
    assert "\x1b" not in str(e.value)


@pytest.mark.parametrize("given", [
    {}, {"OMP_NUM_THREADS": ""}, {"OMP_NUM_THREADS": " 7 "}, {"OMP_NUM_THREADS": "4096"}, {"DMLC_ROLE": "worker"},
    {"MXNET_ENGINE_TYPE": "NaiveEngine"}, {"MXNET_SAFE_ACCUMULATION": "1", "MXNET_MKLDNN_ENABLED": "False"},
    {"MXNET_MKLDNN_CACHE_NUM": "-1"}, {"MXNET_HOME": "abc", "MXNET_SUBGRAPH_BACKEND": "NONE"}])
def test_what_mxnet_can_read_is_let_through(given):
    mxnet_import.check_variables(given)


def test_a_command_ends_with_one_line_and_status_2(tmp_path):
    (tmp_path / "m.params").write_bytes(b"")
    done = subprocess.run([sys.executable, "-c", "from gluon_ft.cli.main import main; main()", "predict",
                           str(tmp_path / "m.params"), "x.jpg"], capture_output=True, text=True, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "abc"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == ("error: the environment variable OMP_NUM_THREADS cannot be read; expected "
                                            "a whole number from 1 to 4096; found 'abc'; change it, or unset it")


@pytest.mark.parametrize(("variable", "line"), [
    ("MPLBACKEND=abc", ""),
    ("TQDM_MININTERVAL=abc", "error: the environment variable TQDM_MININTERVAL cannot be read; found could not convert "
                             "string to float: 'abc'; change it, or unset it\n")])
def test_junk_for_the_libraries_that_draw_and_count(variable, line):
    code = ("from gluon_ft.cli.console import command\n@command()\ndef c(as_json):\n    import matplotlib\n"
            "    from gluon_ft.io.reporter import progress\n    list(progress(range(3)))\nc([])")
    name, _, value = variable.partition("=")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, name: value})
    assert (done.returncode, done.stdout, done.stderr) == (2 if line else 0, "", line)
