"""Runs a recipe and appends its accuracies to benchmarks/results/<recipe>.csv: median, min and max over its seeds.

    python benchmarks/record_recipe.py odd_or_even 'bundled digits' --seeds 5
    python benchmarks/record_recipe.py odd_or_even 'MNIST test set' --seeds 5 --data ../shared/data/mnist
"""
from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import recording

from gluon_ft.cli import console

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


@click.command(cls=console.Command, context_settings={"ignore_unknown_options": True})
@click.argument("recipe")
@click.argument("data")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def main(recipe, data, options):
    """Run RECIPE with OPTIONS, and record its rows as measured on DATA."""
    done = subprocess.run([sys.executable, str(RECIPES / f"{recipe}.py"), *options, "--json"], stdout=subprocess.PIPE,
                          text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    measured = json.loads(done.stdout.splitlines()[-1])["rows"]
    rows = [recording.row(recipe, f"{data}; {' '.join(options)}", f"{name}, {part} accuracy", "fraction",
                          [row[f"{part}_accuracy"] for row in measured if row["name"] == name])
            for name in dict.fromkeys(row["name"] for row in measured) for part in ("train", "validation")]
    print(recording.show(rows))
    print(f"appended to {recording.append(rows, recipe)}")


if __name__ == "__main__":
    main()
