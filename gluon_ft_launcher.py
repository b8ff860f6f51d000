"""The console script `gluon-ft`: one line where MXNet cannot be imported, and `gluon-ft doctor` even then."""
from __future__ import annotations

import importlib
import importlib.util
import sys
import types


def main():
    """Runs `gluon_ft.cli`; an interruption while it is still being imported is one line and status 130 as well."""
    try:
        return _commands()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _commands():
    """The commands; where gluon_ft itself cannot be imported, only `doctor` runs, without the package."""
    try:
        from gluon_ft.cli import main as commands
    except ImportError as error:
        if sys.argv[1:2] != ["doctor"]:
            if "--debug" in sys.argv:
                raise
            print(f"error: {error}; see gluon-ft doctor", file=sys.stderr)
            sys.exit(2)
        return _doctor_alone()
    return commands(prog_name="gluon-ft")


def _doctor_alone():
    """Imports the doctor beneath an empty `gluon_ft`, since the real one needs what the doctor says is missing."""
    for name in [m for m in sys.modules if m.split(".")[0] == "gluon_ft"]:
        del sys.modules[name]
    package = types.ModuleType("gluon_ft")
    package.__path__ = importlib.util.find_spec("gluon_ft").submodule_search_locations
    sys.modules["gluon_ft"] = package
    doctor = importlib.import_module("gluon_ft.commands.doctor").doctor
    return doctor(args=sys.argv[2:], prog_name="gluon-ft doctor")


if __name__ == "__main__":
    main()
