"""`gluon-ft doctor`: shows what `gluon_ft.runtime.doctor` finds; status 1 where something prevents use."""
from __future__ import annotations

import click

from gluon_ft.cli import console


@click.command("doctor", cls=console.Command)
@console.json_option
def doctor(as_json):
    """Show versions, MXNet's features, processors and devices, the cache folder, and what to put right.

    Ends with status 0 where gluon_ft can be used, with 1 where a problem prevents that.
    """
    from gluon_ft.runtime.doctor import as_dict, as_text, examine

    findings = examine()
    result = as_dict(findings)
    click.echo(as_text(findings))
    console.emit(result, as_json)
    return 0 if result["usable"] else console.EXIT_FAILURE
