"""Too little memory, told as what to do about it."""
from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import mxnet as mx

from gluon_ft.errors import TrainingError

# MXNet on CPUs, in its pool of pinned memory, and on GPUs; C++'s own exception.
_SIGNS = re.compile(r"out of memory|failed to allocate|memory allocation|bad_alloc|cannot allocate", re.IGNORECASE)


@contextlib.contextmanager
def explained(name: str, batch_size: int | None) -> Iterator[None]:
    """Turns failed allocations into a TrainingError that names the batch size and what to try."""
    try:
        yield
    except (mx.MXNetError, MemoryError) as error:
        if isinstance(error, mx.MXNetError) and not _SIGNS.search(str(error)):
            raise
        size = f"a batch of {batch_size}" if batch_size else "this batch"
        half = f"batch size {max(1, batch_size // 2)}" if batch_size else "half the batch size"
        raise TrainingError(f"{name}: out of memory with {size}", expected="memory for a training step",
                            remedy=f"try {half} with accumulate=2 (the same steps in half the memory), more frozen "
                                   "stages, smaller images, or no cache in memory") from error
