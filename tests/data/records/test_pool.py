"""Worker processes beside OpenCV's own threads."""
from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import cv2, numpy as np
from gluon_ft.data.records import pool
cv2.setNumThreads(4)
cv2.GaussianBlur(np.zeros((2000, 3000, 3), np.uint8), (5, 5), 1)
print(list(pool.ordered(len, ["a", "bb", "ccc"], workers=2)), cv2.getNumThreads())
"""


def test_workers_start_although_opencv_has_threads_in_the_parent():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[1, 2, 3] 4", done.stderr
