"""Workers in network namespaces of their own, each with its address, as machines are: reached by a stand-in for ssh."""
from __future__ import annotations

import os
import shutil
import stat
import subprocess

import pytest
from test_distributed import CHILD, LAUNCH, read, same, trained

ROOT, HOSTS = "10.213.77.1", {"gftone": "10.213.77.2", "gfttwo": "10.213.77.3"}
SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift 2; done
host=$1
shift
exec ip netns exec "$host" sh -c "$*"
"""


def ip(*words, check=True):
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if check and done.returncode:
        pytest.skip(f"network namespaces cannot be made here: ip {' '.join(words)}: {done.stderr.strip()}")


@pytest.fixture
def machines():
    """Two namespaces on one bridge, and the bridge's address here."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces need the command ip (package iproute2)")
    try:
        ip("link", "add", "gftbridge", "type", "bridge")
        ip("addr", "add", f"{ROOT}/24", "dev", "gftbridge")
        ip("link", "set", "gftbridge", "up")
        for name, address in HOSTS.items():
            ip("netns", "add", name)
            ip("link", "add", f"{name}-0", "type", "veth", "peer", "name", f"{name}-1", "netns", name)
            ip("link", "set", f"{name}-0", "master", "gftbridge", "up")
            ip("-n", name, "addr", "add", f"{address}/24", "dev", f"{name}-1")
            ip("-n", name, "link", "set", f"{name}-1", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield
    finally:
        for name in HOSTS:
            ip("netns", "del", name, check=False)
            ip("link", "del", f"{name}-0", check=False)
        ip("link", "del", "gftbridge", check=False)


@pytest.mark.slow
def test_machines_with_addresses_of_their_own(tmp_path, machines):
    ssh, names, result = tmp_path / "bin" / "ssh", tmp_path / "hosts", tmp_path / "result.json"
    ssh.parent.mkdir()
    ssh.write_text(SSH)
    ssh.chmod(ssh.stat().st_mode | stat.S_IXUSR)
    names.write_text("gftone\ngfttwo slots=2\n")
    command = [*LAUNCH, "--hosts", str(names), "-s", "2", "--root", ROOT, "--",
               *CHILD, "gluon", "dist_sync", str(result)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={
        **os.environ, "PATH": f"{ssh.parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1", "PS_VERBOSE": "1"})
    _, error = process.communicate(timeout=120)
    assert process.returncode == 0, error[-3000:]
    # MXNet's own log: where each process can be reached.
    assert all(f"ip={address}" in error for address in (ROOT, *HOSTS.values())), error[-3000:]
    same(read(result), trained(tmp_path, "gluon", 0))
