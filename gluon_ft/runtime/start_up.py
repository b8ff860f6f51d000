"""Prepares MXNet's import in every Python that has gluon_ft, so that `import mxnet` may come first, or alone.

setup.py writes the text of this file into `gluon_ft.pth`, which Python executes when it starts (reading one more module
would take twice the time). It only puts one finder in front of the others; gluon_ft itself is loaded when MXNet or
GluonCV is imported. `GLUON_FT_NO_HOOK=1` turns it off.
"""
import os
import sys


class _GluonFtHook:
    """Hands `mxnet` and `gluoncv` to the finder of `gluon_ft.runtime.mxnet_import`, which takes its place."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name not in ("mxnet", "gluoncv"):
            return None
        try:
            import gluon_ft.runtime.mxnet_import  # noqa: F401
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "gluon_ft":
                return None  # gluon_ft was removed by hand: MXNet is imported without it
            raise
        from importlib.util import find_spec

        return find_spec(name)


# In a virtual environment Python executes the file twice.
if os.environ.get("GLUON_FT_NO_HOOK", "0") in ("", "0") and not any(
        getattr(finder, "__name__", "") == "_GluonFtHook" for finder in sys.meta_path):
    sys.meta_path.insert(0, _GluonFtHook)
