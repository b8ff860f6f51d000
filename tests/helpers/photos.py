"""Tiny photo folders for tests: each class has its colour, each image a pattern of its own."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

COLOURS = {"red": (40, 40, 200), "green": (40, 200, 40), "blue": (200, 40, 40)}  # BGR


def make(folder, classes=("red", "green", "blue"), count: int = 10, size: int = 40, seed: int = 0) -> Path:
    """Writes `count` PNGs of each class, no two alike to the audit, and returns the folder."""
    folder, rng = Path(folder), np.random.RandomState(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pattern = rng.randint(0, 256, (6, 6)).astype(np.uint8)
            pattern = cv2.resize(pattern, (size, size), interpolation=cv2.INTER_CUBIC)[..., None]
            image = np.clip(0.5 * np.array(COLOURS[name]) + 0.5 * pattern, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{number:02}.png"), image)
    return folder
