"""`gluon-ft launch`: training by several processes, here, over ssh, or as Slurm, MPI or Kubernetes start them."""
from __future__ import annotations

import sys

import click

from gluon_ft.cli import console


@click.command("launch", cls=console.Command)
@click.option("-n", "--workers", type=click.IntRange(1, 1024), show_default=False,
              help="Processes that train.  [default: one a slot of --hosts, or as many as srun or mpirun started]")
@click.option("-s", "--servers", type=click.IntRange(1, 1024), default=None, show_default=False,
              help="Processes that add up the gradients.  [default: 1]")
@click.option("--hosts", type=click.Path(), help="A file of machines to reach by ssh, one a line: user@host slots=2. "
                                                 "They need this folder and this Python, at the same paths.")
@click.option("--root", metavar="ADDRESS", help="This machine's address, as the hosts reach it.")
@click.option("--python", help="The Python on the hosts, where it has another path.")
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
def launch(workers, servers, hosts, root, python, words):
    """Run COMMAND in several processes that train one network together: a gluon-ft command, or any other.

    MXNet's scheduler and servers are started beside them, and every line is shown with the process that printed it.
    Batch sizes are those of all workers together. When a process fails, the others are ended and its last lines are
    shown. Inside a step of Slurm, under mpirun, and in a pod of Kubernetes each process recognises its place.

    \b
    gluon-ft launch -n 2 -- train photos/ --run runs/first
    gluon-ft launch -n 4 -s 2 --hosts hosts.txt -- train photos/ --epochs 20
    gluon-ft launch -n 2 -- python my_script.py
    srun --ntasks 4 gluon-ft launch -s 2 -- train /shared/photos
    mpirun -np 4 -x DMLC_PS_ROOT_URI=10.0.0.1 gluon-ft launch -- train photos/
    """
    from gluon_ft.runtime.distributed import hosts as machines
    from gluon_ft.runtime.distributed import launch as launching

    named = [] if hosts is None else machines.read(hosts)
    own = [python or sys.executable, "-m", "gluon_ft.cli.main"] if words[0] in _commands() else []
    job = launching.job_of([*own, *words], workers, servers, named, root=root, python=python)
    return launching.run(job)


# What follows the first word is COMMAND's, whether or not '--' stands before it.
launch.allow_interspersed_args = False


def _commands():
    from gluon_ft.cli.main import COMMANDS

    return COMMANDS
