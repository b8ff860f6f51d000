"""Checks the environment variables that MXNet reads, before it is imported: a value it cannot read ends the process."""
from __future__ import annotations

import os
import re
from collections.abc import Mapping

from gluon_ft.errors import ConfigError, printable

MOST_THREADS = 4096
_THREADS = """OMP_NUM_THREADS MXNET_CPU_WORKER_NTHREADS MXNET_GPU_WORKER_NTHREADS MXNET_CPU_PRIORITY_NTHREADS
MXNET_GPU_COPY_NTHREADS MXNET_MP_WORKER_NTHREADS MXNET_MP_OPENCV_NUM_THREADS MXNET_OMP_MAX_THREADS
MXNET_KVSTORE_REDUCTION_NTHREADS MXNET_CPU_TEMP_COPY MXNET_GPU_TEMP_COPY MXNET_CPU_PARALLEL_RAND_COPY
MXNET_GPU_PARALLEL_RAND_COPY""".split()
_NUMBERS = """MXNET_KVSTORE_BIGARRAY_BOUND MXNET_KVSTORE_SLICE_THRESHOLD MXNET_CPU_PARALLEL_SIZE
MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_FWD MXNET_EXEC_BULK_EXEC_MAX_NODE_TRAIN_BWD
MXNET_EXEC_INPLACE_GRAD_SUM_CAP MXNET_MKLDNN_CACHE_NUM DMLC_NUM_WORKER DMLC_NUM_SERVER DMLC_PS_ROOT_PORT""".split()
_FLAGS = """MXNET_EXEC_BULK_EXEC_TRAIN MXNET_EXEC_BULK_EXEC_INFERENCE MXNET_MKLDNN_ENABLED MXNET_BACKWARD_DO_MIRROR
MXNET_SAFE_ACCUMULATION MXNET_SUBGRAPH_VERBOSE MXNET_PROFILER_AUTOSTART MXNET_USE_FUSION MXNET_ENABLE_GPU_P2P
MXNET_EXEC_VERBOSE_LOGGING MXNET_ENFORCE_DETERMINISM MXNET_ELIMINATE_COMMON_EXPR MXNET_USE_MKLDNN_RNN
MXNET_KVSTORE_USETREE MXNET_KVSTORE_LOGTREE MXNET_CUDA_ALLOW_TENSOR_CORE MXNET_ENGINE_INFO
MXNET_MEM_PLAN_VERBOSE_LOGGING MXNET_STORAGE_FALLBACK_LOG_VERBOSE MXNET_INFER_STORAGE_TYPE_VERBOSE_LOGGING""".split()
_NAMES = {"MXNET_ENGINE_TYPE": ("NaiveEngine", "ThreadedEngine", "ThreadedEnginePerDevice"),
          "DMLC_ROLE": ("worker", "server", "scheduler")}


def check(variables: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError for the first variable whose value MXNet cannot read; an empty one counts as unset."""
    for name, expected, fits in [
            *((name, f"a whole number from 1 to {MOST_THREADS}", _threads) for name in _THREADS),
            *((name, "a whole number", _number) for name in _NUMBERS),
            *((name, "0 or 1", _flag) for name in _FLAGS),
            *((name, " or ".join(known), known.__contains__) for name, known in _NAMES.items())]:
        value = variables.get(name, "").strip()
        if value and not fits(value):
            raise ConfigError(f"the environment variable {name} cannot be read", expected=expected,
                              found=f"'{printable(value)}'", remedy="change it, or unset it")


def _threads(value: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,4}", value)) and 1 <= int(value) <= MOST_THREADS


def _number(value: str) -> bool:
    return bool(re.fullmatch(r"-?[0-9]{1,9}", value))


def _flag(value: str) -> bool:
    return value.lower() in ("true", "false") or bool(re.fullmatch(r"[0-9]", value))
