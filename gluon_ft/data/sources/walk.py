"""The one walk through folders of images: what is taken, what is left out and why, which links are followed."""
from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from gluon_ft.data.images.formats import has_image_suffix, suffix_of
from gluon_ft.data.lists import sort_key
from gluon_ft.errors import DataError
from gluon_ft.io.paths import AnyPath

# Folders that a NAS, a file manager or an archive program makes beside the user's own; in lower case.
SYSTEM_FOLDERS = frozenset({"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx",
                            "$recycle.bin", "system volume information", "lost+found"})

SUFFIX = "no image by its suffix"
LOOSE = "no image suffix, or outside of any class"
HIDDEN = "hidden"
SYSTEM = "in a folder that a NAS, a file manager or an archive program made"
LINK = "a link to a folder that is taken already or that it lies in"
SPECIAL = "a device or a pipe"
BROKEN, UNREADABLE = "broken link", "folder cannot be read"  # the problems
MOST_NAMED = 3  # examples of each reason


def walk_order(path: str) -> list[tuple[bool, str, str]]:
    """Orders paths as one reads a folder: its own files by name, then each subfolder by name."""
    parts = path.split("/")
    return [(i + 1 < len(parts), *sort_key(part)) for i, part in enumerate(parts)]


def said(left_out: Mapping[str, str], of: str = "") -> str | None:
    """What was left out, counted by reason, in one line; None where nothing was.

    Parameters
    ----------
    left_out : mapping of str to str
        Path -> why.
    of : str
        Whose files they are, such as ' of the training folder'.
    """
    by_reason: dict[str, list[str]] = {}
    for path, why in left_out.items():
        by_reason.setdefault("" if why in (SUFFIX, LOOSE) else why, []).append(path)
    plain, parts = by_reason.pop("", []), []
    if plain:
        suffixes = Counter(suffix_of(path) or "no suffix" for path in plain if left_out[path] == SUFFIX).most_common()
        outside = ", or outside of any class" * (len(plain) > sum(count for _, count in suffixes))
        parts.append(f"{len(plain)} files{of} are not images by their suffix{outside}, the first {_shown(plain[0])}"
                     + (f" ({_few([f'{count} {suffix}' for suffix, count in suffixes])})" if suffixes else ""))
    parts += [f"{len(paths)} files{'' if plain else of} left out, {why} ({_few(map(_shown, paths))})"
              for why, paths in by_reason.items()]
    return "; ".join(parts) or None


def _few(texts: Iterable[str]) -> str:
    texts = list(texts)
    return ", ".join(texts[:MOST_NAMED]) + ", ..." * (len(texts) > MOST_NAMED)


def _shown(path: str) -> str:
    # Control characters and bytes that are not UTF-8 as escapes, other letters as they are.
    return repr(path)[1:-1]


class Walker:
    """Finds the images below a folder. The rule, for every command:

    An image is a regular file with a suffix of `formats.SUFFIXES`, in any case. Hidden files and folders (a leading
    dot) and `SYSTEM_FOLDERS` are not taken. Links are followed, but a folder is entered once, and never a folder
    above. What is not taken is in `left_out`, hidden files that are no images excepted.

    Attributes
    ----------
    root : Path
    left_out : dict of str to str
        Path below the root -> why it was not taken.
    problems : dict of str to str
        Broken links and folders that cannot be read -> why. Empty where `strict`: the first one is an error.
    """

    def __init__(self, root: AnyPath, strict: bool = True):
        self.root, self.strict = Path(root), strict
        self.left_out: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self._owner: dict[str, str] = {}  # real folder -> the top folder that its images belong to

    def top(self) -> tuple[list[str], list[str]]:
        """The names of the root's own subfolders and of the files beside them, each sorted. Nothing is left out."""
        subfolders, files = [], []
        for entry in self._entries(self.root, ""):
            kind = self._is_folder(entry, entry.name)
            if kind is not None:
                (subfolders if kind else files).append(entry.name)
        return subfolders, files

    def below(self, top: str = "") -> list[str]:
        """The images in and below the subfolder `top` of the root ('': the root itself), unsorted.

        A folder that is met again is not entered again, and a link to a folder above is not followed: both would go
        round for ever, or give this subfolder the images of the others. Linked folders come last, so that the path
        taken does not depend on which name is listed first.

        Raises DataError where a link puts one folder into two subfolders; if `strict`, also for a broken link, a
        folder that cannot be read and a name that is not valid UTF-8.
        """
        start = os.path.realpath(self.root / top)
        above = _and_above(os.path.dirname(start)) | (_and_above(os.path.realpath(self.root)) if top else set())
        images: list[str] = []
        folders, links = [(top, start)], []
        while folders or links:
            linked = not folders
            inside, real = folders.pop() if folders else links.pop(0)
            if real in above or self._owner.get(real) == top:
                self.left_out[inside] = LINK
                continue
            if real in self._owner:
                raise DataError("one folder in two classes, by a link", path=self.root / inside,
                                found=f"classes '{self._owner[real]}' and '{top}'", remedy="remove the link")
            self._owner[real] = top
            for entry in self._entries(self.root / inside, inside, linked):
                path = f"{inside}/{entry.name}" if inside else entry.name
                kind = self._is_folder(entry, path)
                if kind is False:
                    self._sort_in(entry, path, images)
                elif kind and entry.is_symlink():
                    links.append((path, os.path.realpath(entry.path)))
                elif kind:
                    # Asking the system for the real path of every folder is slow in deep trees.
                    folders.append((path, os.path.join(real, entry.name)))
        return images

    def _sort_in(self, entry: os.DirEntry, path: str, images: list[str]) -> None:
        if not has_image_suffix(entry.name):
            self.left_out[path] = SUFFIX
        elif entry.is_file():
            images.append(path)
        else:
            self.left_out[path] = SPECIAL

    def _entries(self, folder: Path, inside: str, linked: bool = False) -> list[os.DirEntry]:
        """What is in a folder, sorted, without what is hidden or of the system."""
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: sort_key(entry.name))
        except OSError as error:
            self._problem(inside or ".", UNREADABLE, folder, error.strerror or str(error),
                          "check its permissions")
            return []
        return [entry for entry in entries if self._is_visible(entry, f"{inside}/{entry.name}".lstrip("/"))]

    def _is_visible(self, entry: os.DirEntry, path: str) -> bool:
        hidden = entry.name.startswith(".")
        if not hidden and entry.name.lower() not in SYSTEM_FOLDERS:
            if self.strict:
                _check_utf8(entry, self.root)
            return True
        why = HIDDEN if hidden else SYSTEM
        if _is_plain_folder(entry):
            self.left_out.update((f"{path}/{name}", why) for name in _images_in(entry.path))
        elif not hidden:
            return True
        elif has_image_suffix(entry.name):
            self.left_out[path] = why
        return False

    def _is_folder(self, entry: os.DirEntry, path: str) -> bool | None:
        """Whether it is a folder; None for a broken link."""
        with contextlib.suppress(OSError):
            if entry.is_dir():
                return True
        if entry.is_symlink() and not os.path.exists(entry.path):
            # It may have been a whole class, on a disk that is not there today.
            self._problem(path, BROKEN, Path(entry.path), "nothing", "remove the link, or put back what it leads to",
                          "an image or a folder at its end")
            return None
        return False

    def _problem(self, path: str, what: str, place: Path, found: str, remedy: str, expected: str | None = None) -> None:
        if self.strict:
            raise DataError(what, path=place, expected=expected, found=found, remedy=remedy)
        self.problems[path] = what if what == BROKEN else f"{what}: {found}"


def _is_plain_folder(entry: os.DirEntry) -> bool:
    with contextlib.suppress(OSError):
        return entry.is_dir(follow_symlinks=False)
    return False


def _images_in(folder: str) -> Iterator[str]:
    """The images in and below a folder that is left out, as paths below it; links are not followed."""
    for path, inside, files in os.walk(folder):
        inside.sort()
        for name in sorted(files):
            if has_image_suffix(name):
                yield os.path.relpath(os.path.join(path, name), folder).replace(os.sep, "/")


def _check_utf8(entry: os.DirEntry, root: Path) -> None:
    try:
        entry.name.encode("utf-8")
    except UnicodeEncodeError:
        raise DataError("name is not valid UTF-8", path=root, found=ascii(os.path.relpath(entry.path, root)),
                        remedy="rename it") from None


def _and_above(path: str) -> set[str]:
    return {path, *map(str, Path(path).parents)}
