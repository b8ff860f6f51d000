"""Who a process is, from the environment that Slurm, MPI, Kubernetes and others set: a table."""
from __future__ import annotations

import json

import pytest

from gluon_ft.errors import ConfigError
from gluon_ft.runtime.distributed import roles

SLURM = {"SLURM_JOB_ID": "1234", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3", "SLURM_NTASKS": "8",
         "SLURM_JOB_NODELIST": "gpu[02-04],old7"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}
MXJOB = {"DMLC_PS_ROOT_URI": "job-scheduler-0", "DMLC_PS_ROOT_PORT": "9091", "DMLC_NUM_WORKER": "3",
         "DMLC_NUM_SERVER": "2", "DMLC_USE_KUBERNETES": "1",
         "MX_CONFIG": json.dumps({"cluster": {}, "labels": {}, "task": {"type": "worker", "index": 2}})}
TORCH = {"RANK": "2", "WORLD_SIZE": "3", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"}


def named(members):
    return [member.label for member in members]


@pytest.mark.parametrize("environment, servers, by, place, address, wanted", [
    (SLURM, 2, "Slurm", (3, 8), ("gpu02", 28254), ["worker 3"]),
    ({**SLURM, "SLURM_PROCID": "0"}, 2, "Slurm", (0, 8), ("gpu02", 28254), ["scheduler", "server 0", "worker 0"]),
    ({**SLURM, "SLURM_PROCID": "1", "DMLC_PS_ROOT_PORT": "9000"}, 10, "Slurm", (1, 8), ("gpu02", 9000),
     ["server 1", "server 9", "worker 1"]),
    (OPEN_MPI | {"DMLC_PS_ROOT_URI": "10.0.0.5"}, 1, "Open MPI", (1, 4), ("10.0.0.5", 20000), ["worker 1"]),
    (OPEN_MPI | {"OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 2, "Open MPI", (1, 4), ("127.0.0.1", 20000),
     ["server 1", "worker 1"]),
    (OPEN_MPI | {"OMPI_MCA_orte_default_hostfile": "/etc/mpi/hostfile"}, 1, "Open MPI", (1, 4),
     ("job-worker-0.job", 20000), ["worker 1"]),
    # mpirun inside a job of Slurm
    (SLURM | OPEN_MPI | {"DMLC_PS_ROOT_URI": "gpu02"}, 1, "Open MPI", (1, 4), ("gpu02", 20000), ["worker 1"]),
    ({"PMI_RANK": "0", "PMI_SIZE": "2", "MPI_LOCALNRANKS": "2"}, 1, "MPI", (0, 2), ("127.0.0.1", 20000),
     ["scheduler", "server 0", "worker 0"]),
    (MXJOB | {"DMLC_ROLE": "worker"}, 5, "DMLC_ROLE", (2, 3), ("job-scheduler-0", 9091), ["worker 2"]),
    (MXJOB | {"DMLC_ROLE": "server"}, 5, "DMLC_ROLE", (2, 3), ("job-scheduler-0", 9091), ["server 2"]),
    (TORCH, 3, "torchrun or PyTorchJob", (2, 3), ("job-master-0", 23456), ["server 2", "worker 2"]),
    ({"JOB_COMPLETION_INDEX": "1", "DMLC_NUM_WORKER": "2", "DMLC_PS_ROOT_URI": "job-0.job"}, 1, "Kubernetes", (1, 2),
     ("job-0.job", 20000), ["worker 1"]),
])
def test_roles(environment, servers, by, place, address, wanted):
    task = roles.task_of(environment, lambda path: "# written by the operator\njob-worker-0.job slots=1\njob-worker-1")
    assert task is not None
    assert (task.by, (task.rank, task.size)) == (by, place)
    found = roles.settled(task)
    assert (found.root, found.port) == address
    assert named(roles.members_of(task, servers)) == wanted


@pytest.mark.parametrize("environment", [
    {}, {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # after salloc, outside a step
    SLURM | {"SLURM_STEP_ID": "4294967291"},  # a batch script itself
    {"RANK": "0"}, {"DMLC_ROLE": "joint"}, {"JOB_COMPLETION_INDEX": "1"}])
def test_not_started_as_one_of_several(environment):
    assert roles.task_of(environment) is None


@pytest.mark.parametrize("environment, words", [
    (OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "one"}, "OMPI_COMM_WORLD_RANK is not a number; expected a whole number"),
    ({"HOROVOD_RANK": "0"}, "horovodrun has started this process.*without launch, with kvstore 'horovod'"),
    ({"BYTEPS_LOCAL_RANK": "0"}, "bpslaunch has started.*with kvstore 'byteps'")])
def test_environments_that_are_refused(environment, words):
    with pytest.raises(ConfigError, match=words):
        roles.task_of(environment)


def test_an_address_that_nobody_knows_is_asked_for():
    task = roles.task_of(OPEN_MPI)
    with pytest.raises(ConfigError, match=r"Open MPI does not say.*mpirun -x DMLC_PS_ROOT_URI=10\.0\.0\.1"):
        roles.settled(task)


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("servers", [1, 3, 7])
def test_every_process_runs_once(size, servers):
    found = [member for rank in range(size) for member in roles.members_of(roles.Task("Slurm", rank, size), servers)]
    assert sorted(named(found)) == sorted(["scheduler", *(f"server {i}" for i in range(servers)),
                                           *(f"worker {i}" for i in range(size))])


@pytest.mark.parametrize("text, names", [
    ("", []), ("node7", ["node7"]), ("a,b", ["a", "b"]),
    ("gpu[01-03,7],login", ["gpu01", "gpu02", "gpu03", "gpu7", "login"]),
    ("r[1-2]n[08-09]", ["r1n08", "r1n09", "r2n08", "r2n09"]), ("n[3]-ib", ["n3-ib"])])
def test_node_lists_of_slurm(text, names):
    assert roles.expanded(text) == names
