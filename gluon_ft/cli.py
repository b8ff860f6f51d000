"""`gluon-ft`: parses the command line, then calls one library function a command."""
from __future__ import annotations

import click

from gluon_ft import __version__, console


@click.group(cls=console.Group)
@click.version_option(__version__, prog_name="gluon-ft")
def main():
    """Fine-tune MXNet/Gluon networks: prepare data, get weights, train, evaluate, export."""


if __name__ == "__main__":
    main()
