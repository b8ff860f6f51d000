"""The form of every recipe: docstring with commands, time and result; a main that fits a screen; public names only."""
from __future__ import annotations

import ast
import re

import pytest
from conftest import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.py"))


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_form(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lines = (ast.get_docstring(tree) or "").splitlines()
    assert lines[0].endswith(".") and lines[2].startswith(f"    python recipes/{path.name}")
    text = " ".join(lines)
    assert "Result to expect" in text and re.search(r"seconds|minutes?\b", text)
    (main,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    assert main.end_lineno - main.lineno < 40
    names = [alias.name for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
             for alias in node.names]
    names += [part for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for part in node.module.split(".")]
    names += [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    assert [name for name in names if name.startswith("_") and name != "__future__" and name != "__version__"] == []
