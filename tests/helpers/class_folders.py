"""Folders of empty image files, one subfolder a class, for the tests of scanning and splitting."""
from __future__ import annotations

from pathlib import Path


def make(root: Path, **classes) -> Path:
    """Empty files: neither scanning nor splitting opens an image. A number stands for so many names."""
    for name, files in classes.items():
        (root / name).mkdir(parents=True)
        for file in [f"{i:03}.jpg" for i in range(files)] if isinstance(files, int) else files:
            (root / name / file).parent.mkdir(parents=True, exist_ok=True)
            (root / name / file).touch()
    return root


def files_of(split_, part):
    return {entry.path for entry in split_.parts[part]}
