"""The number of processors that this process may really use: affinity, the cgroup's CPU quota, processes per machine.

joblib's `cpu_count` (loky's) reads only the quota at the root of the cgroups' mount. It misses quotas on the process's
own cgroup and on those between (systemd slices, nested containers, job schedulers), so all of them are read here.
"""
from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

PROCESSES_VARIABLE = "GLUON_FT_PROCESSES_PER_MACHINE"
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")


def seen_processors() -> int:
    """Processors of the machine, at least 1, whether or not this process may use them."""
    return os.cpu_count() or 1


def allowed_processors() -> int:
    """Processors that this process may run on: its affinity, which a cgroup's cpuset restricts too."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else seen_processors()


def usable_processors(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> int:
    """Processors that this process may keep busy: its affinity and its CPU quota, rounded up, at least 1.

    A quota of 1.5 processors counts as 2: two threads use all of it, with pauses; one thread leaves a third unused.

    Parameters
    ----------
    cgroups : Path
        Where the cgroups are mounted (`/sys/fs/cgroup`).
    own : Path
        The file that names this process's own cgroups (`/proc/self/cgroup`).
    """
    count = allowed_processors()
    quota = cpu_quota(cgroups, own)
    return max(1, min(count, math.ceil(quota)) if quota is not None else count)


def cpu_quota(cgroups: Path = CGROUPS, own: Path = OWN_CGROUP) -> float | None:
    """Processors granted by cgroup v2 (`cpu.max`) or v1 (`cpu.cfs_quota_us`); None where there is no limit.

    A limit on any cgroup above the process's own holds for it too, so the lowest one counts.
    """
    quotas = [q for folder in _own_folders(cgroups, own) for q in (_quota_v2(folder), _quota_v1(folder))
              if q is not None]
    return min(quotas, default=None)


def processes_per_machine() -> int:
    """`GLUON_FT_PROCESSES_PER_MACHINE`: training processes that share this machine; 1 unless set.

    A value that is not a whole number of at least 1 is reported as a warning and counts as 1.
    """
    value = os.environ.get(PROCESSES_VARIABLE, "").strip()
    if value.isdecimal() and int(value) >= 1:
        return int(value)
    if value:
        warnings.warn(f"{PROCESSES_VARIABLE}: expected a whole number of at least 1; found '{value}'; using 1",
                      RuntimeWarning, stacklevel=2)
    return 1


def threads() -> int:
    """Threads for one process: the usable processors divided by the processes per machine, at least 1."""
    return max(1, usable_processors() // processes_per_machine())


def _own_folders(cgroups: Path, own: Path) -> Iterator[Path]:
    """The folders that may hold a CPU limit of this process: its own cgroup's, and those above it."""
    # Inside a container the mount often starts at the container's own cgroup while `own` still gives the path
    # from the machine's root: that path does not exist then, and the walk upwards ends at the mount, which counts.
    seen = set()
    for mounts, path in _memberships(own):
        parts = [p for p in path.strip("/").split("/") if p]
        if ".." in parts:
            parts = []
        for mount in mounts:
            for depth in range(len(parts), -1, -1):
                folder = cgroups.joinpath(mount, *parts[:depth])
                if folder not in seen:
                    seen.add(folder)
                    yield folder


def _memberships(own: Path) -> Iterator[tuple[list[str], str]]:
    """Pairs of mount names in the cgroups' folder, and this process's path below those mounts."""
    text = ""
    with contextlib.suppress(OSError):
        text = own.read_text()
    known = False
    for line in text.splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0" and not controllers:
            known = True
            yield ["", "unified"], path
        elif "cpu" in controllers.split(","):
            known = True
            yield list(dict.fromkeys([controllers, "cpu"])), path
    if not known:
        yield ["", "unified", "cpu", "cpu,cpuacct"], "/"


def _quota_v2(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    return None


def _quota_v1(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    return None
