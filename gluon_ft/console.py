"""What every command and recipe shares: options, one-line errors, exit status, progress bars, the JSON line."""
from __future__ import annotations

import json
import os
import sys
import traceback

import click
from tqdm import tqdm

from gluon_ft.errors import UserError, near

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


class Command(click.Command):
    """A click command with `--json` and `--debug`, whose errors are one line on standard error and status 2."""

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "show_default": True,
                                               "max_content_width": 100})
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["--debug"], is_flag=True, expose_value=False, is_eager=True,
                                        callback=_remember_debug, help="Show the traceback of an error."))

    def main(self, args=None, prog_name=None, standalone_mode=True, **extra):
        return _run(super().main, args, prog_name, standalone_mode, **extra)


class Group(click.Group):
    """A click group whose commands are `Command`s and whose errors are shown the same way."""

    command_class = Command
    group_class = type

    def __init__(self, *args, **kwargs):
        kwargs.setdefault("context_settings", {"help_option_names": ["-h", "--help"], "max_content_width": 100})
        super().__init__(*args, **kwargs)

    def main(self, args=None, prog_name=None, standalone_mode=True, **extra):
        return _run(super().main, args, prog_name, standalone_mode, **extra)

    def resolve_command(self, ctx, args):
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'; {near(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)


def _remember_debug(ctx, _param, value):
    ctx.find_root().meta["gluon_ft.debug"] = value or ctx.find_root().meta.get("gluon_ft.debug", False)


def _run(main, args, prog_name, standalone_mode, **extra):
    if not standalone_mode:
        return main(args, prog_name, standalone_mode=False, **extra)
    argv = list(sys.argv[1:] if args is None else args)
    try:
        # click returns the code of a `ctx.exit(code)`, and otherwise what the command returned.
        code = main(args, prog_name, standalone_mode=False, **extra)
        sys.exit(code if isinstance(code, int) else 0)
    except click.ClickException as error:
        _fail(_one_line(error), argv)
    except UserError as error:
        _fail(str(error), argv)
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


def _fail(line, argv):
    if "--debug" in argv:
        traceback.print_exc()
    print(f"error: {line}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def _one_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split())
    ctx = getattr(error, "ctx", None)
    return f"{message.rstrip('.')}; see {ctx.command_path} --help" if ctx else message


def json_option(function):
    """Adds `--json`: the last line on standard output is then one JSON object (see `emit`)."""
    return click.option("--json", "as_json", is_flag=True,
                        help="End with one JSON object on the last line of standard output.")(function)


def emit(result: dict, as_json: bool) -> None:
    """Prints `result` as one JSON line where `--json` was given; NumPy numbers and paths are allowed in it."""
    if as_json:
        print(json.dumps(result, default=_plain), flush=True)


def _plain(value):
    if hasattr(value, "item"):
        return value.item()
    return str(value)


def progress(iterable=None, **options) -> tqdm:
    """A tqdm bar on standard error, drawn only on a terminal (or where `GLUON_FT_PROGRESS=1`), gone when done."""
    forced = os.environ.get("GLUON_FT_PROGRESS")
    options.setdefault("disable", None if forced is None else forced == "0")
    options.setdefault("leave", False)
    options.setdefault("dynamic_ncols", True)
    return tqdm(iterable, **options)


def table(rows: list[dict], columns: list[str] | None = None) -> str:
    """Rows as aligned text; floats with three decimals, numbers to the right, missing values as '-'."""
    columns = columns or list(rows[0])
    cells = [[_cell(row.get(c)) for c in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    right = [all(isinstance(row.get(c), (int, float, type(None))) for row in rows) for c in columns]
    lines = [columns, ["-" * w for w in widths], *cells]
    return "\n".join("  ".join(t.rjust(w) if r else t.ljust(w) for t, w, r in zip(line, widths, right)).rstrip()
                     for line in lines)


def _cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
