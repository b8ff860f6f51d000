"""The machines of a job: the file that names them, which process runs on which, and how one is started there."""
from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gluon_ft.errors import ConfigError
from gluon_ft.io.paths import AnyPath
from gluon_ft.runtime.distributed.roles import SCHEDULER, SERVER, WORKER, Member

# Of this machine's environment, what the processes elsewhere get as well.
PASSED = ("GLUON_FT_", "MXNET_", "OMP_", "KMP_", "PS_", "DMLC_", "CUDA_", "NCCL_", "PYTHON")


@dataclass(frozen=True)
class Host:
    """A machine: what ssh calls it, such as 'user@10.0.0.2', and how many workers run there."""

    name: str
    slots: int = 1


def read(path: AnyPath) -> list[Host]:
    """The hosts in a file: one a line, `[user@]host[:port] [slots=N]`, as mpirun takes them; `#` begins a comment.

    Raises ConfigError for a file without hosts, or a line of another form.
    """
    path, found = Path(path), []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("the file of hosts cannot be read", path=path, found=error) from error
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        slots = [word[6:] for word in words[1:] if word.startswith("slots=")]
        if words[0].startswith("-") or len(words) > 2 or len(slots) != len(words) - 1 or not all(
                text.isdecimal() and int(text) for text in slots):
            raise ConfigError(f"line {number} is not a host", path=path, expected="such as 'user@10.0.0.2 slots=2'",
                              found=f"'{line.strip()}'")
        found.append(Host(words[0], int(slots[0]) if slots else 1))
    if not found:
        raise ConfigError("no hosts", path=path, expected="one a line, such as 'user@10.0.0.2 slots=2'")
    return found


def placed(workers: int, servers: int, hosts: Sequence[Host] = ()) -> list[Member]:
    """Every process of a job with its host, the scheduler first.

    Parameters
    ----------
    workers, servers : int
    hosts : sequence of Host
        Workers fill the slots of one host after the other, and begin anew where there are more of them; servers take
        the hosts in turn. The scheduler runs on this machine, as does everything without hosts.

    Returns
    -------
    list of Member
    """
    slots = [host.name for host in hosts for _ in range(host.slots)]
    everyone = [Member(SCHEDULER), *(Member(SERVER, i) for i in range(servers)),
                *(Member(WORKER, i) for i in range(workers))]
    if not hosts:
        return everyone
    place = {SERVER: [host.name for host in hosts], WORKER: slots}
    return [member if member.role == SCHEDULER else
            replace(member, host=place[member.role][member.rank % len(place[member.role])]) for member in everyone]


def command(host: str | None, python: str | None = None, environment: Mapping[str, str] | None = None) -> list[str]:
    """What starts a keeper (`distributed.keeper`), here or over ssh.

    What it is to run, and in which environment, it reads from its input: no shell takes that apart, and no list of
    processes shows it. ssh must work without a question (a key, or an agent).

    Parameters
    ----------
    host : str or None
        `[user@]host[:port]`; None: this machine.
    python : str, optional
        The Python there; by default the one that runs here, at the same path.
    environment : mapping, optional
        Of this process, default `os.environ`: where Python is to look for packages is the same there.
    """
    if host is None:
        return [sys.executable, "-m", "gluon_ft.runtime.distributed.keeper"]
    search = (os.environ if environment is None else environment).get("PYTHONPATH")
    words = [*(["env", f"PYTHONPATH={search}"] if search else []), python or sys.executable, "-m",
             "gluon_ft.runtime.distributed.keeper"]
    name, _, port = host.partition(":")
    return ["ssh", "-o", "BatchMode=yes", *(["-p", port] if port else []), name, shlex.join(words)]


def passed(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that processes on other machines get too."""
    return {name: value for name, value in environment.items() if name.startswith(PASSED)}
