"""`gluon-ft`: registers the commands, each of which lives in gluon_ft/commands and is imported when it is used."""
from __future__ import annotations

import click

from gluon_ft import __version__, console

# name -> (module:attribute, one line of help)
COMMANDS = {
    "doctor": ("gluon_ft.commands.doctor:doctor", "Show what is installed, what is missing, and what to do about it."),
}


@click.group(cls=console.Group, lazy=COMMANDS)
@click.version_option(__version__, prog_name="gluon-ft")
def main():
    """Fine-tune MXNet/Gluon networks: prepare data, get weights, train, evaluate, export."""


if __name__ == "__main__":
    main()
