"""Run in an environment with `.[cu112]`: imports MXNet through gluon_ft beside a stand-in for the driver, and computes.

    python cu112_child.py LIBCUDA     # prints one JSON object
"""
from __future__ import annotations

import ctypes
import json
import os
import sys
import time

assert "LD_LIBRARY_PATH" not in os.environ
ctypes.CDLL(sys.argv[1], mode=ctypes.RTLD_GLOBAL)

import gluon_ft  # isort: skip  # noqa: E402
begun = time.perf_counter()
import mxnet as mx  # isort: skip  # noqa: E402

from gluon_ft.runtime import devices, doctor  # noqa: E402
from gluon_ft.runtime.gpu import self_test  # noqa: E402

taken = time.perf_counter() - begun
self_test.check(mx.cpu(1))
features = {name: mx.runtime.Features().is_enabled(name) for name in ("CUDA", "CUDNN", "NCCL")}
with open("/proc/self/maps", encoding="utf-8") as file:
    mapped = sorted({line.split("/")[-1].strip() for line in file if "/nvidia/" in line})
print(json.dumps({"features": features, "gpus": mx.context.num_gpus(), "gluon_ft": gluon_ft.__file__,
                  "sum": float(mx.nd.ones((3, 3)).sum().asscalar()), "auto": devices.name(devices.contexts("auto")),
                  "mapped": mapped, "seconds": round(taken, 2),
                  "findings": [[f.name, f.value, f.level] for f in doctor.examine() if f.topic in ("cuda", "mxnet")]}))
