"""Runs one process of a job, here or at the other end of ssh: `python -m gluon_ft.runtime.distributed.keeper`.

The first line on standard input says what to run, as JSON: {"command", "environment", "folder"}. Each further line is
the number of a signal to pass on. Where the input ends, nobody is left to wait for the process, and it is ended: so no
process stays behind when the launch, its machine or the connection dies.
"""
from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading

from gluon_ft.io import documents
from gluon_ft.runtime.distributed.roles import LOOPBACK, NODE, PORT, ROOT

# Seconds from a request to end until the process is killed; MXNet's workers, once they wait for each other, hear none.
GRACE = 3.0
FAILED = 127  # the status, as in shells, of a command that could not be started
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Runs the process to its end; its exit status, or 128 and the number of the signal that ended it."""
    order = documents.parse_json(sys.stdin.readline())
    environment = {**os.environ, **order["environment"]}
    environment.setdefault(NODE, own_address(environment.get(ROOT, LOOPBACK), int(environment.get(PORT, 9))))
    try:
        process = subprocess.Popen(order["command"], cwd=order["folder"], env=environment, stdin=subprocess.DEVNULL,
                                   start_new_session=True, preexec_fn=_die_with_parent)
    except OSError as error:
        print(f"{error.filename or order['command'][0]}: {error.strerror}", file=sys.stderr, flush=True)
        return FAILED
    threading.Thread(target=_pass_on, args=(process,), daemon=True).start()
    status = process.wait()
    return status if status >= 0 else 128 - status


def own_address(root: str, port: int) -> str:
    """The address of this machine that `root` sees: MXNet by itself takes the first network that it finds.

    Parameters
    ----------
    root : str
        Name or address of the machine to reach.
    port : int
        Nothing is sent to it.
    """
    with contextlib.suppress(OSError):
        family, kind, protocol, _, address = socket.getaddrinfo(root, port, socket.AF_INET, socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.connect(address)
            return probe.getsockname()[0]
    return LOOPBACK


def _pass_on(process):
    for line in sys.stdin:
        with contextlib.suppress(ValueError):
            _send(process, int(line))
    _send(process, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        _send(process, signal.SIGKILL)


def _send(process, number):
    # To the whole session: the process may have started others, such as a shell its command.
    with contextlib.suppress(OSError):
        os.killpg(process.pid, number)


def _die_with_parent():
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
