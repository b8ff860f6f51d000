"""What a run ran on: date, code, command, machine and versions, without anything that names the user."""
from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import gluon_ft
from gluon_ft.runtime import hardware, processors

PACKAGES = ("mxnet", "mxnet-cu112", "gluoncv", "numpy", "scikit-learn", "opencv-python-headless", "opencv-python",
            "pillow", "matplotlib", "safetensors", "onnx", "onnxruntime")
VARIABLES = ("MXNET_", "OMP_", "KMP_")
# The folders whose changes make a run's code differ from the commit.
CODE = ("gluon_ft", "recipes", "tools", "benchmarks", "setup.py")


def environment() -> dict:
    """The record that `environment.json` holds.

    Keys: `date` (UTC, ISO 8601), `gluon_ft` (version, git commit and whether the code differs from it; both None
    where the package is not in a checkout of the project), `command` (None in a notebook or an interactive
    session), `python`, `os`, `machine` (CPU model, usable processors, memory in GiB, GPU names), `versions`,
    `variables` (MXNET_*, OMP_* and KMP_* only). The home folder is written `~`.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "gluon_ft": {"version": gluon_ft.__version__, **git_state(Path(gluon_ft.__file__).resolve().parents[1])},
        "command": command_line(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "os": platform.platform(),
        "machine": {"cpu": hardware.processor_name(), "processors": processors.usable_processors(),
                    "memory_gib": _memory_gib(), "gpus": _gpu_names()},
        "versions": _versions(),
        "variables": {k: without_home(v) for k, v in sorted(os.environ.items()) if k.startswith(VARIABLES)},
    }


def git_state(root: Path) -> dict:
    """`{"commit": 40 hex digits or None, "dirty": bool or None}` of the checkout whose top folder is `root`.

    A package that merely lies somewhere inside another project's checkout has no commit.
    """
    top = _output("git", "-C", str(root), "rev-parse", "--show-toplevel")
    commit = _output("git", "-C", str(root), "rev-parse", "HEAD")
    if not top or not commit or Path(top).resolve() != root.resolve():
        return {"commit": None, "dirty": None}
    changes = _output("git", "--no-optional-locks", "-C", str(root), "status", "--porcelain", "--", *CODE)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def command_line(argv: list[str] | None = None) -> str | None:
    """The command that started this process, as one would type it in the current folder.

    `argv` is the whole line, interpreter first; default: this process's. None for a notebook or a prompt.
    """
    argv = list(getattr(sys, "orig_argv", None) or [sys.executable, *sys.argv]) if argv is None else list(argv)
    rest = argv[1:]
    if not rest or rest[0] in ("", "-i") or any("ipykernel" in word for word in rest[:3]):
        return None
    script = Path(rest[0])
    if not rest[0].startswith("-") and script.suffix == "" and script.parent.name in ("bin", "Scripts"):
        words = [script.name, *rest[1:]]
    else:
        words = ["python", *rest]
    here = str(Path.cwd()).rstrip(os.sep) + os.sep
    words = [word[len(here):] if word.startswith(here) and word != here else word for word in words]
    return without_home(shlex.join(words))


def without_home(text: str) -> str:
    """`text` with the user's home folder written as `~`, so that a shared report does not name the user."""
    home = os.path.expanduser("~").rstrip(os.sep)
    if not home or home == "~":
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)


def _output(*command: str) -> str | None:
    """Standard output of a command, None where it is not installed or fails."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _memory_gib() -> float | None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    return None


def _gpu_names() -> list[str]:
    listed = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [line.strip() for line in listed.splitlines() if line.strip()] if listed else []


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
