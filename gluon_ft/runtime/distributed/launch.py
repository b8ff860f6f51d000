"""Starts the processes of a job, shows what they print, and ends them all when one fails."""
from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from gluon_ft.errors import ConfigError
from gluon_ft.io.signals import SIGNALS
from gluon_ft.runtime.distributed import hosts, keeper, roles
from gluon_ft.runtime.distributed.roles import LOOPBACK, WORKER, Member
from gluon_ft.runtime.processors import PROCESSES_VARIABLE, allowed_processors, seen_processors

# What a scheduler or a server runs: MXNet takes the role from the environment when it is imported.
PARAMETER_SERVER = (sys.executable, "-c", "import gluon_ft, mxnet")
LAST_LINES = 12  # that are shown of a process which failed
_LOOK = 0.05  # seconds between two looks at the processes
# Seconds that the scheduler and the servers here may live after the last worker here: a script that has made no
# distributed KVStore never tells them to end.
_LEFT_OVER = 10.0
# Seconds that the other workers have after a signal once the first has ended: worker 0 may still write a checkpoint,
# and one that waits for a worker which is gone hears no signal.
_SAVING = 30.0


@dataclass(frozen=True)
class Job:
    """What is started.

    Attributes
    ----------
    members : list of Member
        Those that this process starts.
    command : list of str
        What each worker runs.
    workers, servers : int
        Of the whole job.
    root, port : str and int
        The scheduler's address.
    python : str or None
        The Python on other hosts; None: at the same path as here.
    """

    members: Sequence[Member]
    command: Sequence[str]
    workers: int
    servers: int
    root: str
    port: int
    python: str | None = None


@dataclass
class _Running:
    member: Member
    process: subprocess.Popen
    last: deque = field(default_factory=lambda: deque(maxlen=LAST_LINES))
    readers: list = field(default_factory=list)
    ended: bool = False


def run(job: Job, out: IO[str] | None = None, err: IO[str] | None = None) -> int:
    """Starts a job and waits for its end.

    SIGINT and SIGTERM are passed on to the workers, which may save what they have; a second one ends everything.

    Parameters
    ----------
    job : Job
    out, err : text streams, default standard output and standard error
        Each line is preceded by the process it is from, as 'worker 0 | '.

    Returns
    -------
    int
        0 where every worker here has ended with it; else the status of the first that has not, after everything else
        was ended and its last lines were shown; 128 and the number of a signal where one came.
    """
    out, err = out or sys.stdout, err or sys.stderr
    write, came, started = threading.Lock(), [], []
    with _received(came):
        try:
            for member in job.members:
                started.append(_start(job, member, out, err, write))
            return _watch(started, came, lambda line: _print(err, write, line))
        finally:
            _end(started)


def _start(job, member, out, err, write) -> _Running:
    variables = {**roles.variables(member, job.workers, job.servers, job.root, job.port), **_threads(job, member)}
    command = list(job.command) if member.role == WORKER else list(PARAMETER_SERVER)
    given = {} if member.host is None else hosts.passed(os.environ)
    if member.host is not None and job.python is not None and member.role != WORKER:
        command[0] = job.python
    process = subprocess.Popen(hosts.command(member.host, job.python), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, errors="backslashreplace", start_new_session=True)
    running = _Running(member, process)
    order = {"command": command, "environment": {**given, **variables}, "folder": os.getcwd()}
    _tell(running, json.dumps(order))
    width = max(len(one.label) for one in job.members)
    for source, target in ((process.stdout, out), (process.stderr, err)):
        label = f"{member.label:{width}} | "
        thread = threading.Thread(target=_show, args=(source, target, write, label, running.last), daemon=True)
        thread.start()
        running.readers.append(thread)
    return running


def _threads(job, member) -> dict[str, str]:
    """Workers of one machine share its processors, unless each has been given its own already."""
    here = sum(one.role == WORKER and one.host == member.host for one in job.members)
    apart = member.host is None and allowed_processors() < seen_processors()
    if member.role != WORKER or here < 2 or apart or PROCESSES_VARIABLE in os.environ:
        return {}
    return {PROCESSES_VARIABLE: str(here)}


def _show(source, target, write, label, last):
    for line in source:
        last.append(line.rstrip("\n"))
        _print(target, write, f"{label}{line.rstrip()}")


def _print(target, write, line):
    with write, contextlib.suppress(OSError, ValueError):
        print(line, file=target, flush=True)


def _tell(running, line):
    with contextlib.suppress(OSError, ValueError):
        print(line, file=running.process.stdin, flush=True)


@contextlib.contextmanager
def _received(came):
    """Inside, SIGINT and SIGTERM are noted in `came`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(started, came, say: Callable[[str], None]) -> int:
    workers = [one for one in started if one.member.role == WORKER] or started
    passed, quiet_since, some_since = 0, None, None
    while True:
        for number in came[passed:]:
            passed += 1
            if passed > 1:
                return 128 + number
            for one in workers:
                _tell(one, str(int(number)))
        for one in started:
            status = one.process.poll()
            if status is None or one.ended:
                continue
            one.ended = True
            if status and not came:
                say(_report(one, status))
                return status if 0 < status < 128 else 1
        if came and any(one.ended for one in workers):
            some_since = some_since or time.monotonic()
            if time.monotonic() - some_since > _SAVING:
                return 128 + came[0]
        if all(one.ended for one in workers):
            quiet_since = quiet_since or time.monotonic()
            if all(one.ended for one in started) or came or time.monotonic() - quiet_since > _LEFT_OVER:
                return 128 + came[0] if came else 0
        time.sleep(_LOOK)


def _report(running, status) -> str:
    for reader in running.readers:
        reader.join(1.0)
    killed = status - 128 if status > 128 else -status
    how = f"ended with status {status}"
    if killed > 0:
        with contextlib.suppress(ValueError):
            how = f"was ended by {signal.Signals(killed).name}"
    where = f" on {running.member.host}" if running.member.host else ""
    lines = [f"launch: {running.member.label}{where} {how}; the others are ended"]
    if running.last:
        lines += ["launch: its last lines:", *(f"    {line}" for line in running.last)]
    return "\n".join(lines)


def _end(started):
    """Ends what still runs: asks, and after a few seconds kills."""
    for one in started:
        with contextlib.suppress(OSError, ValueError):
            one.process.stdin.close()
    until = time.monotonic() + keeper.GRACE + 2.0
    for one in started:
        try:
            one.process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            one.process.kill()
        for reader in one.readers:
            reader.join(0.5)


def free_port(address: str = "") -> int:
    """A port that nothing uses on this machine at the moment."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        return probe.getsockname()[1]


def job_of(command: Sequence[str], workers: int | None, servers: int | None, named: Sequence[hosts.Host] = (),
           environment: Mapping[str, str] | None = None, root: str | None = None, python: str | None = None) -> Job:
    """What this process has to start.

    Under Slurm, MPI or Kubernetes (see `roles.task_of`) those processes of the job that run beside this one; else, all.

    Parameters
    ----------
    command : sequence of str
        What each worker runs.
    workers, servers : int, optional
        Default: as many as were started, or as the hosts have slots, and one server.
    named : sequence of Host
        Where they run; default here.
    environment : mapping, default os.environ
    root : str, optional
        This machine's address as the hosts reach it; default the one on the way to the first.
    python : str, optional
        See `Job`.

    Raises
    ------
    ConfigError
        The numbers contradict each other, or are out of their range.
    """
    environment = os.environ if environment is None else environment
    task = None if named else roles.task_of(environment)
    if task is not None:
        task = roles.settled(task)
        if workers not in (None, task.size):
            raise ConfigError(f"{task.by} has started another number of workers", expected=f"-n {task.size}",
                              found=f"-n {workers}", remedy="leave -n out")
        servers = task.servers or servers or 1
        assert task.root is not None and task.port is not None, "settled"
        return Job(roles.members_of(task, servers), command, task.size, servers, task.root, task.port)
    workers = workers or sum(host.slots for host in named)
    if not workers:
        raise ConfigError("how many workers is not known", expected="-n WORKERS, or --hosts FILE",
                          remedy="give -n, or start it by srun or mpirun")
    servers = servers or 1
    members = hosts.placed(workers, servers, named)
    if not named:
        return Job(members, command, workers, servers, LOOPBACK, free_port(LOOPBACK))
    first = named[0].name.rpartition("@")[2].partition(":")[0]
    root = root or environment.get(roles.ROOT) or keeper.own_address(first, 22)
    return Job(members, command, workers, servers, root, free_port(), python)
