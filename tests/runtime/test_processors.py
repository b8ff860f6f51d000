"""processors: affinity, cgroup quotas (v1, v2, nested, in a container), processes per machine."""
from __future__ import annotations

import pytest

from gluon_ft.runtime import processors


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("cpu_", "cpu.", 1)).write_text(text)


def own(tmp_path, text):
    path = tmp_path / "own"
    path.write_text(text)
    return path


@pytest.fixture
def eight(monkeypatch):
    monkeypatch.setattr(processors, "allowed_processors", lambda: 8)


def test_v2_own_cgroup_and_those_above(tmp_path, eight):
    mine = own(tmp_path, "0::/a.slice/b.scope\n")
    write(tmp_path / "a.slice/b.scope", cpu_max="max 100000\n")
    assert processors.cpu_quota(tmp_path, mine) is None
    assert processors.usable_processors(tmp_path, mine) == 8
    write(tmp_path / "a.slice", cpu_max="350000 100000\n")
    assert processors.cpu_quota(tmp_path, mine) == 3.5
    assert processors.usable_processors(tmp_path, mine) == 4
    write(tmp_path / "a.slice/b.scope", cpu_max="150000 100000\n")
    assert processors.usable_processors(tmp_path, mine) == 2
    write(tmp_path / "other", cpu_max="50000 100000\n")
    assert processors.usable_processors(tmp_path, mine) == 2


def test_v2_in_a_container_whose_own_file_names_the_path_outside(tmp_path, eight):
    write(tmp_path, cpu_max="200000 100000\n")
    for path in ("0::/docker/0123/abc\n", "0::/\n", "0::/../other\n", ""):
        assert processors.usable_processors(tmp_path, own(tmp_path, path)) == 2, path
    assert processors.usable_processors(tmp_path, tmp_path / "no such file") == 2


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_v1(tmp_path, eight, mount):
    mine = own(tmp_path, f"9:name=systemd:/\n5:cpuset:/x\n2:{mount}:/job/task\n0::/\n")
    write(tmp_path / mount, cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    write(tmp_path / mount / "job/task", cpu_cfs_quota_us="-1\n", cpu_cfs_period_us="100000\n")
    assert processors.cpu_quota(tmp_path, mine) is None
    write(tmp_path / mount / "job", cpu_cfs_quota_us="25000\n", cpu_cfs_period_us="50000\n")
    assert processors.cpu_quota(tmp_path, mine) == 0.5
    assert processors.usable_processors(tmp_path, mine) == 1


def test_v2_beside_v1(tmp_path, eight):
    write(tmp_path / "unified/u", cpu_max="300000 100000\n")
    assert processors.usable_processors(tmp_path, own(tmp_path, "3:cpu:/\n0::/u\n")) == 3


def test_damaged_files_and_a_quota_over_the_affinity_change_nothing(tmp_path, eight):
    for text in ("", "max", "a b", "100 0", "1600000 100000"):
        write(tmp_path, cpu_max=text)
        assert processors.usable_processors(tmp_path, own(tmp_path, "0::/\n")) == 8, text


def test_affinity_counts(tmp_path):
    import os

    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no processor affinity")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert processors.usable_processors(tmp_path, tmp_path / "none") == 1
    finally:
        os.sched_setaffinity(0, before)


def test_threads_are_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(processors, "usable_processors", lambda: 8)
    for value, threads in (("", 8), ("3", 2), ("8", 1), ("100", 1)):
        monkeypatch.setenv(processors.PROCESSES_VARIABLE, value)
        assert processors.threads() == threads
    for value in ("0", "-2", "two", "1.5"):
        monkeypatch.setenv(processors.PROCESSES_VARIABLE, value)
        with pytest.warns(RuntimeWarning, match=f"expected a whole number of at least 1; found '{value}'; using 1"):
            assert processors.threads() == 8
