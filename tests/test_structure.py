"""The shape of the package: sizes of files and folders, declared imports, annotations, and a lazy root."""
from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

import gluon_ft

PACKAGE = ROOT / "gluon_ft"
MODULES = sorted(PACKAGE.rglob("*.py"))
MOST_ENTRIES, MOST_LINES, FEW_LINES, MOST_SHORT = 14, 500, 60, 15
# Markers that are no rooms of the package.
NO_ROOMS = {"__init__.py", "py.typed", "__pycache__"}
DISTRIBUTIONS = {"cv2": "opencv-python", "PIL": "pillow", "sklearn": "scikit-learn", "yaml": "pyyaml",
                 "prometheus_client": "prometheus-client"}


def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_no_folder_has_more_rooms_than_can_be_taken_in():
    folders = [PACKAGE, *(path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__")]
    counts = {str(folder.relative_to(ROOT)): len({path.name for path in folder.iterdir()} - NO_ROOMS)
              for folder in folders}
    # The root has the layers, which are fifteen.
    most = {"gluon_ft": 15}
    assert {folder: count for folder, count in counts.items() if count > most.get(folder, MOST_ENTRIES)} == {}


def test_no_file_is_too_long_and_few_are_slices():
    sizes = {str(path.relative_to(ROOT)): lines(path) for path in MODULES}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}
    short = {name: size for name, size in sizes.items() if size < FEW_LINES and not name.endswith("__init__.py")}
    assert len(short) <= MOST_SHORT, short


def test_every_package_that_is_imported_is_declared():
    words = [node.value for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    declared = {re.split(r"[^A-Za-z0-9_-]", word)[0].lower() for word in words}
    found = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                found.add(node.module.split(".")[0])
    standard = sys.stdlib_module_names if hasattr(sys, "stdlib_module_names") else None
    if standard is None:
        pytest.skip("Python 3.9 does not tell which modules are its own")
    others = found - set(standard) - {"gluon_ft"}
    assert {name for name in others if DISTRIBUTIONS.get(name, name).lower() not in declared} == set()


def public_functions(tree: ast.Module):
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node, False
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    static = any(isinstance(d, ast.Name) and d.id == "staticmethod" for d in inner.decorator_list)
                    yield f"{node.name}.{inner.name}", inner, not static


# click gives a command's function its arguments; hybrid_forward's F is MXNet's `nd` or `sym`, and its data are of that.
UNTYPED = {"hybrid_forward", "forward"}


def arguments_of(node, bound) -> list[ast.arg]:
    return [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs][1 if bound else 0:]


def without_annotations(name, node, bound) -> list[str]:
    missing = [a.arg for a in arguments_of(node, bound) if a.annotation is None]
    return [*missing, *(["-> result"] if node.returns is None else [])]


def test_public_functions_are_annotated():
    bare = {}
    for path in MODULES:
        if "cli" in path.parts:
            continue
        for name, node, bound in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
            if name.rpartition(".")[2] not in UNTYPED and (missing := without_annotations(name, node, bound)):
                bare[f"{path.relative_to(ROOT)}:{name}"] = missing
    assert bare == {}
    assert (PACKAGE / "py.typed").exists()


def described_parameters(docstring: str) -> set[str]:
    """The names that a numpydoc section Parameters describes; empty without one."""
    section = re.search(r"^Parameters\n-{3,}\n(.*?)(?:\n\n\S|\Z)", docstring, re.DOTALL | re.MULTILINE)
    heads = [line.split(" : ")[0] for line in section[1].splitlines() if line[:1].strip()] if section else []
    return {name.strip("* ") for head in heads for name in head.split(",")}


def test_functions_with_three_or_more_parameters_describe_each_of_them():
    silent, stale = {}, {}
    for path in MODULES:
        if "cli" in path.parts:
            continue
        for name, node, bound in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
            own = [a.arg for a in arguments_of(node, bound)]
            described = described_parameters(ast.get_docstring(node) or "")
            if len(own) >= 3 and name.rpartition(".")[2] not in UNTYPED and (missing := set(own) - described):
                silent[f"{path.relative_to(ROOT)}:{name}"] = sorted(missing)
            own += [a.arg for a in (node.args.vararg, node.args.kwarg) if a]
            if others := described - set(own):
                stale[f"{path.relative_to(ROOT)}:{name}"] = sorted(others)
    assert silent == {}, "add them to the section Parameters of the docstring"
    assert stale == {}, "the docstring describes what the function does not take"


def test_the_root_is_lazy_and_shows_its_names():
    code = ("import sys, gluon_ft; dir(gluon_ft)\n"
            "print([m for m in ('mxnet', 'sklearn', 'scipy', 'matplotlib', 'numpy', 'cv2') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(gluon_ft.__all__) <= set(dir(gluon_ft))
    assert all(getattr(gluon_ft, name) is not None for name in gluon_ft.__all__)
    assert "mx" not in gluon_ft.__all__


def test_mx_of_the_root_still_works_with_a_warning():
    import mxnet

    with pytest.warns(DeprecationWarning, match=r"write `import mxnet as mx` after `import gluon_ft`"):
        assert gluon_ft.mx is mxnet


def private_attributes(tree: ast.Module) -> set[str]:
    """Names of private attributes that code asks of anything but itself."""
    return {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")
            and not node.attr.startswith("__") and not (isinstance(node.value, ast.Name) and node.value.id in (
                "self", "cls"))}


def test_only_one_file_names_the_private_attributes_of_gluon_and_module():
    adapter = PACKAGE / "runtime" / "gluon_internals.py"
    theirs = private_attributes(ast.parse(adapter.read_text(encoding="utf-8")))
    assert {"_children", "_params", "_kvstore"} <= theirs
    assert {str(path.relative_to(PACKAGE)): sorted(found) for path in MODULES if path != adapter
            if (found := theirs & private_attributes(ast.parse(path.read_text(encoding="utf-8"))))} == {}
