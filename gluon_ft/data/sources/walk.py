"""`Walker`: finds image files below a folder; decides what is left out and why, and which links are followed."""
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

# Folders made by a NAS, a file manager or an archive program, not by the user; in lower case.
SYSTEM_FOLDERS = frozenset({"@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "__macosx",
                            "$recycle.bin", "system volume information", "lost+found"})

SUFFIX = "no image by its suffix"
LOOSE = "no image suffix, or outside of any class"
HIDDEN = "hidden"
SYSTEM = "in a folder that a NAS, a file manager or an archive program made"
LINK = "a link to a folder that is taken already or that it lies in"
SPECIAL = "a device or a pipe"
BROKEN, UNREADABLE = "broken link", "folder cannot be read"  # in `Walker.problems`
MOST_NAMED = 3  # examples shown for each reason


def walk_order(path: str) -> list[tuple[bool, str, str]]:
    """Sort key for paths: the files of a folder by name, then each subfolder by name."""
    parts = path.split("/")
    return [(i + 1 < len(parts), *sort_key(part)) for i, part in enumerate(parts)]


def said(left_out: Mapping[str, str], of: str = "") -> str | None:
    """One line that counts the files left out for each reason; None if there are none.

    Parameters
    ----------
    left_out : mapping of str to str
        Path -> reason.
    of : str
        Inserted after 'files' in the text, such as ' of the training folder'.
    """
    by_reason: dict[str, list[str]] = {}
    for path, why in left_out.items():
        by_reason.setdefault("" if why in (SUFFIX, LOOSE) else why, []).append(path)
    plain, parts = by_reason.pop("", []), []
    if plain:
        suffixes = Counter(suffix_of(path) or "no suffix" for path in plain if left_out[path] == SUFFIX).most_common()
        outside = ", or outside of any class" * (len(plain) > sum(count for _, count in suffixes))
        parts.append(f"{len(plain)} files{of} are not images by their suffix{outside}, the first {_shown(plain[0])}"
                     + (f" ({_first_few([f'{count} {suffix}' for suffix, count in suffixes])})" if suffixes else ""))
    parts += [f"{len(paths)} files{'' if plain else of} left out, {why} ({_first_few(map(_shown, paths))})"
              for why, paths in by_reason.items()]
    return "; ".join(parts) or None


def _first_few(texts: Iterable[str]) -> str:
    texts = list(texts)
    return ", ".join(texts[:MOST_NAMED]) + ", ..." * (len(texts) > MOST_NAMED)


def _shown(path: str) -> str:
    # Escapes control characters and bytes that are not UTF-8, and nothing else.
    return repr(path)[1:-1]


class Walker:
    """Finds the images below a folder, by the same rules for every command.

    An image is a regular file with a suffix in `formats.SUFFIXES`, in upper or lower case. Hidden files and folders
    (with a leading dot) and `SYSTEM_FOLDERS` are left out. Links are followed, but no folder is entered twice, and no
    parent folder at all. `left_out` records what was left out, except for hidden files that are not images.

    Attributes
    ----------
    root : Path
    left_out : dict of str to str
        Path relative to `root` -> why it was left out.
    problems : dict of str to str
        Broken links and unreadable folders -> what is wrong. Empty if `strict`: then the first one is an error.
    """

    def __init__(self, root: AnyPath, strict: bool = True):
        self.root, self.strict = Path(root), strict
        self.left_out: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self._owner: dict[str, str] = {}  # real path of a folder -> the subfolder of `root` that it belongs to

    def top(self) -> tuple[list[str], list[str]]:
        """(subfolders, files) directly in `root`, by name, each sorted; the files are not only images."""
        subfolders, files = [], []
        for entry in self._entries(self.root, ""):
            kind = self._is_folder(entry, entry.name)
            if kind is not None:
                (subfolders if kind else files).append(entry.name)
        return subfolders, files

    def below(self, top: str = "") -> list[str]:
        """The images in and below the subfolder `top` of the root ('': the root itself), unsorted.

        No folder is entered twice, and links to parent folders are not followed: the walk would never end, or it would
        add the images of other subfolders. Linked folders are entered last, so that the path under which an image is
        found does not depend on which name is listed first.

        Raises DataError if a link puts one folder into two subfolders; if `strict`, also for a broken link, an
        unreadable folder, or a name that is not valid UTF-8.
        """
        start = os.path.realpath(self.root / top)
        above = _with_parents(os.path.dirname(start)) | (_with_parents(os.path.realpath(self.root)) if top else set())
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
                    self._add_file(entry, path, images)
                elif kind and entry.is_symlink():
                    links.append((path, os.path.realpath(entry.path)))
                elif kind:
                    # Faster in deep trees than `os.path.realpath` for each folder.
                    folders.append((path, os.path.join(real, entry.name)))
        return images

    def _add_file(self, entry: os.DirEntry, path: str, images: list[str]) -> None:
        if not has_image_suffix(entry.name):
            self.left_out[path] = SUFFIX
        elif entry.is_file():
            images.append(path)
        else:
            self.left_out[path] = SPECIAL

    def _entries(self, folder: Path, inside: str, linked: bool = False) -> list[os.DirEntry]:
        """The entries of a folder, sorted, without hidden files and system folders."""
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
            # It may stand for a whole class, on a disk that is not mounted now.
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
    """The images in and below a folder that is left out, as relative paths; links are not followed."""
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


def _with_parents(path: str) -> set[str]:
    return {path, *map(str, Path(path).parents)}
