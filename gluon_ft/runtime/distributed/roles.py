"""Who a process is in a job of several: its place as Slurm, MPI, Kubernetes or torchrun tell it, and its roles.

MXNet's parameter server has one scheduler, servers that add up gradients, and workers that train. Whatever starts
the same command several times starts workers; the first of them also runs the scheduler, and servers stand beside them.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gluon_ft.errors import ConfigError
from gluon_ft.io import documents

SCHEDULER, SERVER, WORKER = "scheduler", "server", "worker"
ROLE, ROOT, PORT = "DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"
WORKERS, SERVERS, NODE = "DMLC_NUM_WORKER", "DMLC_NUM_SERVER", "DMLC_NODE_HOST"
# MXNet numbers the workers as they arrive; which of them is the first, and writes, is ours to say.
RANK = "GLUON_FT_WORKER"
LOOPBACK = "127.0.0.1"
# Where no port is named and processes cannot tell each other: below the range that systems hand out by themselves.
FIRST_PORT, PORTS = 20_000, 10_000
_SLURM_NO_STEP = 0xFFFF_FFF0  # the numbers of the steps 'batch', 'extern' and 'interactive' are above


@dataclass(frozen=True)
class Member:
    """One process of a job.

    Attributes
    ----------
    role : 'scheduler', 'server' or 'worker'
    rank : int
        Among those of its role, from 0.
    host : str or None
        Where it is started over ssh; None: on this machine.
    """

    role: str
    rank: int = 0
    host: str | None = None

    @property
    def label(self) -> str:
        """'worker 0', 'server 1', 'scheduler'."""
        return self.role if self.role == SCHEDULER else f"{self.role} {self.rank}"


@dataclass(frozen=True)
class Task:
    """This process among those that something else has started with the same command.

    Attributes
    ----------
    by : str
        What started them: 'Slurm', 'Open MPI', ...
    rank, size : int
        Its number, from 0, and how many there are.
    here : int or None
        How many of them are on this machine, where that is known.
    root : str or None
        The address of the machine with number 0.
    port : int or None
        The scheduler's, where it is known to all.
    role : str or None
        Where each process has one role alone, as in Kubernetes' MXJob.
    servers : int or None
        How many there are, where that is settled.
    """

    by: str
    rank: int
    size: int
    here: int | None = None
    root: str | None = None
    port: int | None = None
    role: str | None = None
    servers: int | None = None


def task_of(environment: Mapping[str, str], read: Callable[[str], str] | None = None) -> Task | None:
    """What the environment says of this process; None where nothing has started it as one of several.

    Parameters
    ----------
    environment : mapping of str to str
        Such as `os.environ`.
    read : callable(path) -> text, default the file's
        Reads the host file of Open MPI.

    Raises
    ------
    ConfigError
        A variable is not a number, or `horovodrun` or BytePS has started the process.
    """
    read = read or (lambda path: Path(path).read_text(encoding="utf-8", errors="replace"))
    for name, what in (("HOROVOD_RANK", "horovodrun"), ("BYTEPS_LOCAL_RANK", "bpslaunch")):
        if name in environment:
            kind = name.partition("_")[0].lower()
            raise ConfigError(f"{what} has started this process, and adds up the gradients itself", found=name,
                              remedy=f"run the command without launch, with kvstore '{kind}'")
    for found in (_mxjob, _open_mpi, _slurm, _pmi, _torchrun, _indexed_job):
        task = found(environment, read)
        if task is not None:
            return task
    return None


def _number(environment, name, *others) -> int | None:
    for one in (name, *others):
        text = environment.get(one, "").strip()
        if text:
            if not text.isdecimal():
                raise ConfigError(f"the variable {one} is not a number", expected="a whole number from 0",
                                  found=f"'{text}'")
            return int(text)
    return None


def _given_root(environment) -> dict:
    return {"root": environment.get(ROOT) or None, "port": _number(environment, PORT)}


def _mxjob(environment, read):
    """Kubernetes' training operator sets MXNet's own variables in each pod, and the pod's number in MX_CONFIG."""
    role = environment.get(ROLE)
    if role not in (SCHEDULER, SERVER, WORKER):
        return None
    rank = _number(environment, RANK, "DMLC_WORKER_ID" if role == WORKER else "DMLC_SERVER_ID")
    if rank is None:
        try:
            rank = int(documents.parse_json(environment.get("MX_CONFIG", "{}"))["task"]["index"])
        except (ValueError, KeyError, TypeError):
            rank = 0
    return Task("DMLC_ROLE", rank, _number(environment, WORKERS) or 1, role=role,
                servers=_number(environment, SERVERS) or 1, **_given_root(environment))


def _open_mpi(environment, read):
    rank, size = (_number(environment, f"OMPI_COMM_WORLD_{name}") for name in ("RANK", "SIZE"))
    if rank is None or size is None:
        return None
    found, here = _given_root(environment), _number(environment, "OMPI_COMM_WORLD_LOCAL_SIZE")
    hosts = environment.get("OMPI_MCA_orte_default_hostfile") or environment.get("PRTE_MCA_prte_default_hostfile")
    if not found["root"] and hosts and here != size:
        # Kubernetes' MPI operator writes it, and the first process runs on the first host.
        found["root"] = next((line.split()[0] for line in read(hosts).splitlines() if line.split("#")[0].strip()), None)
    return Task("Open MPI", rank, size, here, **found)


def _slurm(environment, read):
    step, rank = _number(environment, "SLURM_STEP_ID", "SLURM_STEPID"), _number(environment, "SLURM_PROCID")
    size = _number(environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
    if step is None or step >= _SLURM_NO_STEP or rank is None or size is None:
        return None
    found = _given_root(environment)
    nodes = expanded(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or "")
    found["root"] = found["root"] or (nodes[0] if nodes else None)
    # All tasks of a step must come to the same port without a word between them.
    found["port"] = found["port"] or _agreed_port(31 * (_number(environment, "SLURM_JOB_ID") or 0) + step)
    return Task("Slurm", rank, size, size if len(nodes) == 1 else None, **found)


def _pmi(environment, read):
    rank, size = (_number(environment, f"PMI_{name}") for name in ("RANK", "SIZE"))
    if rank is None or size is None:
        return None
    here = _number(environment, "MPI_LOCALNRANKS", "PMI_LOCAL_SIZE")
    return Task("MPI", rank, size, here, **_given_root(environment))


def _torchrun(environment, read):
    """torchrun's variables, which Kubernetes' PyTorchJob sets as well."""
    rank, size = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    if rank is None or size is None or "MASTER_ADDR" not in environment:
        return None
    given = _given_root(environment)
    return Task("torchrun or PyTorchJob", rank, size, _number(environment, "LOCAL_WORLD_SIZE"),
                given["root"] or environment["MASTER_ADDR"], given["port"] or _number(environment, "MASTER_PORT"))


def _indexed_job(environment, read):
    """A plain Job of Kubernetes with `completionMode: Indexed`, which says neither how many nor where the first is."""
    rank, size = _number(environment, "JOB_COMPLETION_INDEX"), _number(environment, WORKERS)
    if rank is None or size is None:
        return None
    return Task("Kubernetes", rank, size, None, **_given_root(environment))


def _agreed_port(number: int) -> int:
    return FIRST_PORT + number % PORTS


def members_of(task: Task, servers: int) -> list[Member]:
    """The processes of the job that this one is to run.

    Parameters
    ----------
    task : Task
    servers : int
        Of the whole job; they stand beside the workers, the first beside the first.

    Returns
    -------
    list of Member
        The scheduler stands beside worker 0, and first in the list.
    """
    if task.role is not None:
        return [Member(task.role, task.rank)]
    beside = [Member(SERVER, number) for number in range(task.rank, servers, task.size)]
    return [*([Member(SCHEDULER)] if task.rank == 0 else []), *beside, Member(WORKER, task.rank)]


def settled(task: Task) -> Task:
    """The task with the scheduler's address and port; ConfigError where they cannot be known."""
    root = task.root or (LOOPBACK if task.here == task.size else None)
    if root is None:
        raise ConfigError(f"{task.by} does not say where its first process runs", expected=f"{ROOT} in the environment",
                          remedy=f"give that machine's address to all of them, such as mpirun -x {ROOT}=10.0.0.1")
    return Task(task.by, task.rank, task.size, task.here, root, task.port or _agreed_port(0), task.role, task.servers)


def variables(member: Member, workers: int, servers: int, root: str, port: int) -> dict[str, str]:
    """What MXNet reads from the environment of a process.

    Parameters
    ----------
    member : Member
    workers, servers : int
        Of the whole job.
    root, port : str and int
        The scheduler's.
    """
    found = {ROLE: member.role, ROOT: root, PORT: str(port), WORKERS: str(workers), SERVERS: str(servers)}
    if member.role == WORKER:
        found[RANK] = str(member.rank)
    if root == LOOPBACK:
        found[NODE] = LOOPBACK
    return found


def expanded(nodes: str) -> list[str]:
    """The names in a node list of Slurm: 'gpu[01-03,7],login' is gpu01, gpu02, gpu03, gpu7 and login."""
    names: list[str] = []
    for part in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodes):
        names.extend(_one_expanded(part.strip()))
    return names


def _one_expanded(part: str) -> list[str]:
    found = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", part)
    if not found:
        return [part]
    names = []
    for numbers in found[2].split(","):
        first, _, last = numbers.partition("-")
        if first.isdecimal() and (last or first).isdecimal():
            names += [f"{found[1]}{number:0{len(first)}d}" for number in range(int(first), int(last or first) + 1)]
    return [name + rest for name in names for rest in _one_expanded(found[3])]
