"""`gluon-ft`: registers the commands, each of which lives in gluon_ft/cli and is imported when it is used."""
from __future__ import annotations

import click

from gluon_ft import __version__
from gluon_ft.cli import console

# name -> (module:attribute, one line of help)
COMMANDS = {
    "train": ("gluon_ft.cli.train:train", "Fine-tune a network on a folder of photos, from audit to report."),
    "find-lr": ("gluon_ft.cli.train:find_lr", "Find a learning rate: loss against rising rates, a picture."),
    "runs": ("gluon_ft.cli.runs:runs", "List the runs in a folder; compare two."),
    "predict": ("gluon_ft.cli.predict:predict", "What a saved network says of images."),
    "evaluate": ("gluon_ft.cli.evaluate:evaluate", "Measure a saved network on labelled images."),
    "explain": ("gluon_ft.cli.explain:explain", "Draw where a saved network sees what it says of images."),
    "export": ("gluon_ft.cli.export:export", "Take a saved network elsewhere: MXNet's files, ONNX, a model card."),
    "serve": ("gluon_ft.cli.predict:serve", "Serve a saved network on this machine: a page, and POST /predict."),
    "advise": ("gluon_ft.cli.advise:advise", "Say how to fine-tune on a folder of images, and why."),
    "split": ("gluon_ft.cli.split:split", "Draw a seeded split of a folder of images; write lists for pack."),
    "pack": ("gluon_ft.cli.records:pack", "Pack the images of lists into RecordIO files."),
    "verify": ("gluon_ft.cli.records:verify", "Read every record of a .rec file and say what is damaged."),
    "inspect": ("gluon_ft.cli.records:inspect", "Show what a .rec file holds: a table and a contact sheet."),
    "audit": ("gluon_ft.cli.data:audit", "Look for copies and bad files in a data set or between its parts."),
    "data": ("gluon_ft.cli.data:data", "Public data sets: list them, get them."),
    "weights": ("gluon_ft.cli.weights:weights", "Pretrained weights: list, get, import, export, check."),
    "launch": ("gluon_ft.cli.launch:launch", "Train by several processes, here or on several machines."),
    "completion": ("gluon_ft.cli.main:completion", "Print what completes commands and options in a shell."),
    "doctor": ("gluon_ft.cli.main:doctor", "Show what is installed, what is missing, and what to do about it."),
}


@click.group(cls=console.Group, lazy=COMMANDS)
@click.version_option(__version__, prog_name="gluon-ft")
def main():
    """Fine-tune MXNet/Gluon networks: prepare data, get weights, train, compare runs, predict, evaluate."""


@click.command("doctor", cls=console.Command)
@console.json_option
def doctor(as_json):
    """Show versions, MXNet's features, processors and devices, the cache folder, weights, and what to put right.

    Ends with status 0 where gluon_ft can be used, with 1 where a problem prevents that.

    \b
    gluon-ft doctor
    gluon-ft doctor --json
    """
    from gluon_ft.runtime.doctor import as_dict, as_text, examine
    from gluon_ft.weights import store

    findings = [*examine(), *store.examine()]
    result = as_dict(findings)
    console.say(*as_text(findings).splitlines())
    console.emit(result, as_json)
    return 0 if result["usable"] else console.EXIT_FAILURE


@click.command("completion", cls=console.Command)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell):
    """Print the script by which SHELL completes the commands and options of gluon-ft with the tabulator key.

    \b
    gluon-ft completion bash >> ~/.bashrc
    gluon-ft completion zsh >> ~/.zshrc
    gluon-ft completion fish > ~/.config/fish/completions/gluon-ft.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None, "click has these three"
    click.echo(found(main, {}, "gluon-ft", "_GLUON_FT_COMPLETE").source())


if __name__ == "__main__":
    main()
