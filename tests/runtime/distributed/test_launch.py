"""Processes that are started together: what they print, what ends them, and how they are started over ssh."""
from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest
from conftest import HELPERS

from gluon_ft.errors import ConfigError
from gluon_ft.runtime.distributed import hosts, launch
from gluon_ft.runtime.distributed.hosts import Host

CHILD = [sys.executable, str(HELPERS / "distributed_child.py")]
# In the place of ssh: runs what it is given in a shell, as sshd does, and says to which machine.
SSH = """#!/bin/sh
echo "$@" >> {log}
while [ "${{1#-}}" != "$1" ]; do shift 2; done
shift
exec sh -c "$*"
"""


def launched(*words, wait=True, **environment):
    process = subprocess.Popen([sys.executable, "-m", "gluon_ft.cli.main", "launch", *words], text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment})
    if not wait:
        return process
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


@pytest.mark.parametrize("how, status, words, last", [
    ("fail", 3, "launch: worker 1 ended with status 3; the others are ended", "    out of paper"),
    ("killed", 1, "launch: worker 1 was ended by SIGKILL; the others are ended", "    here is 1 of 2")])
def test_a_process_that_fails_ends_the_others(how, status, words, last):
    begun = time.monotonic()
    code, out, error = launched("-n", "2", "--", *CHILD, how)
    assert code == status and time.monotonic() - begun < 10
    assert "worker 0  | here is 0 of 2" in out and "worker 1  | here is 1 of 2" in out
    lines = error.splitlines()
    assert words in lines and lines[-1] == last


def test_a_signal_is_passed_on_and_waited_for():
    process = launched("-n", "2", *CHILD, "sleep", wait=False)
    assert {process.stdout.readline(), process.stdout.readline()} == {"worker 0  | here is 0 of 2\n",
                                                                      "worker 1  | here is 1 of 2\n"}
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    out, error = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    assert sorted(out.splitlines()) == ["worker 0  | saved", "worker 1  | saved"] and "launch:" not in error


def test_over_ssh_every_host_gets_its_processes(tmp_path):
    log, ssh, names = tmp_path / "log", tmp_path / "bin" / "ssh", tmp_path / "hosts"
    ssh.parent.mkdir()
    ssh.write_text(SSH.format(log=log))
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    names.write_text("one slots=2  # the big one\n\nuser@two:2222\n")
    code, out, error = launched("--hosts", str(names), "-s", "2", "--root", "127.0.0.1", "--", *CHILD, "fail",
                                PATH=f"{ssh.parent}:{os.environ['PATH']}")
    assert code == 3 and "launch: worker 1 on one ended with status 3" in error
    assert {f"worker {i}  | here is {i} of 3" for i in range(3)} <= set(out.splitlines())
    lines = log.read_text().splitlines()
    assert len(lines) == 5 and sum(" one " in line for line in lines) == 3
    assert sum("-o BatchMode=yes -p 2222 user@two " in line for line in lines) == 2


@pytest.mark.slow
def test_workers_add_up_through_the_servers():
    code, out, error = launched("-n", "3", "-s", "2", "--", *CHILD, "sum")
    assert code == 0, error
    assert sorted(line for line in out.splitlines() if "sum" in line) == [
        f"worker {i}  | sum 6.0 6.0 6.0" for i in range(3)]


def test_where_processes_stand():
    found = hosts.placed(4, 3, [Host("a", 2), Host("b")])
    assert [(member.label, member.host) for member in found] == [
        ("scheduler", None), ("server 0", "a"), ("server 1", "b"), ("server 2", "a"),
        ("worker 0", "a"), ("worker 1", "a"), ("worker 2", "b"), ("worker 3", "a")]
    assert {member.host for member in hosts.placed(2, 1)} == {None}


def test_the_command_for_ssh_survives_a_shell():
    words = hosts.command("me@far:22", "/opt/my python/bin/python", {"PYTHONPATH": "/a b:/c;rm"})
    assert words[:-1] == ["ssh", "-o", "BatchMode=yes", "-p", "22", "me@far"]
    assert words[-1] == "env 'PYTHONPATH=/a b:/c;rm' '/opt/my python/bin/python' -m gluon_ft.runtime.distributed.keeper"
    assert hosts.passed({"HOME": "/root", "OMP_NUM_THREADS": "2", "GLUON_FT_HOME": "/x"}) == {
        "OMP_NUM_THREADS": "2", "GLUON_FT_HOME": "/x"}


@pytest.mark.parametrize("text, words", [
    ("", "no hosts; expected one a line"), ("a slots=0", "line 1 is not a host.*found 'a slots=0'"),
    ("# mine\na cpu=2", "line 2 is not a host"), ("-oProxyCommand=reboot", "line 1 is not a host")])
def test_files_of_hosts_that_are_refused(tmp_path, text, words):
    path = tmp_path / "hosts"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        hosts.read(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        hosts.read(tmp_path / "missing")


def test_jobs(monkeypatch):
    job = launch.job_of(["run"], 2, None, environment={})
    assert (job.workers, job.servers, job.root) == (2, 1, "127.0.0.1") and len(job.members) == 4
    job = launch.job_of(["run"], None, 2, [Host("localhost", 3)], environment={})
    assert job.workers == 3 and len(job.members) == 6
    slurm = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "a,b"}
    job = launch.job_of(["run"], None, 2, environment=slurm)
    assert [member.label for member in job.members] == ["server 1", "worker 1"] and job.root == "a"
    with pytest.raises(ConfigError, match="Slurm has started another number of workers; expected -n 2; found -n 3"):
        launch.job_of(["run"], 3, None, environment=slurm)
    with pytest.raises(ConfigError, match=r"how many workers is not known.*give -n"):
        launch.job_of(["run"], None, None, environment={})
