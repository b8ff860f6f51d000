"""What every command and recipe shares: options, one-line errors, exit status, progress bars, the JSON line."""
from __future__ import annotations

import errno
import functools
import importlib
import io
import json
import os
import sys
import traceback
import warnings
from collections.abc import Collection, Mapping, Sequence

import click

from gluon_ft.errors import ConfigError, UserError, escaped, near
from gluon_ft.io import signals
from gluon_ft.io.reporter import progress
from gluon_ft.io.settings import check_value, plain
from gluon_ft.io.tables import table, terminal_width
from gluon_ft.training.config import ENGINES

__all__ = ["EXIT_FAILURE", "EXIT_INTERRUPTED", "EXIT_USER_ERROR", "Command", "Group", "check_model", "command",
           "conclude", "devices_option", "emit", "engine_option", "folder_options", "json_option",
           "photos_and_assignments", "progress", "recipe", "say", "setting_option", "setting_options",
           "show", "table", "tta_option", "wide_option"]

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_SETTINGS = {"help_option_names": ["-h", "--help"], "show_default": True, "max_content_width": 100}
# What the machine refuses is the user's to put right, unlike any other OSError that reaches `_run`.
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
            errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


class Command(click.Command):
    """A click command with `--debug`, whose errors are one line on standard error and status 2.

    Its function returns the exit status: None or 0 for success. `--json` is added by `json_option` or `command`.
    An exception that is neither a `UserError` nor click's own is a bug and shows its traceback.

    Parameters
    ----------
    groups : mapping of str to sequence of str, optional
        Heading -> names of the options that `--help` shows under it; the others come last.
    """

    def __init__(self, *args, groups: Mapping[str, Sequence[str]] | None = None, **kwargs):
        kwargs.setdefault("context_settings", dict(_SETTINGS))
        super().__init__(*args, **kwargs)
        self.groups = dict(groups or {})
        self.params.append(_debug_option())

    def format_options(self, ctx, formatter):
        left = {param.name: record for param in self.get_params(ctx)
                if isinstance(param, click.Option) and (record := param.get_help_record(ctx)) is not None}
        for heading, names in self.groups.items():
            rows = [left.pop(name) for name in names if name in left]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)
        with formatter.section("Other options" if self.groups else "Options"):
            formatter.write_dl(list(left.values()))

    def main(self, args=None, prog_name=None, standalone_mode=True, **extra):
        return _run(super().main, args, prog_name, standalone_mode, **extra)

    def make_parser(self, ctx):
        return _once_each(super().make_parser(ctx), ctx)


class Group(click.Group):
    """A click group whose commands are `Command`s and whose errors are shown the same way.

    Parameters
    ----------
    lazy : dict, optional
        name -> ('module:attribute', one line of help). Such a command's module is imported when the command is
        used, and not for the group's `--help`.
    """

    command_class = Command
    group_class = type

    def __init__(self, *args, lazy=None, **kwargs):
        kwargs.setdefault("context_settings", dict(_SETTINGS))
        super().__init__(*args, **kwargs)
        self.lazy = dict(lazy or {})
        self.params.append(_debug_option())

    def main(self, args=None, prog_name=None, standalone_mode=True, **extra):
        return _run(super().main, args, prog_name, standalone_mode, **extra)

    def parse_args(self, ctx, args):
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit(0)
        return super().parse_args(ctx, args)

    def make_parser(self, ctx):
        return _once_each(super().make_parser(ctx), ctx)

    def list_commands(self, ctx):
        return sorted({*super().list_commands(ctx), *self.lazy})

    def get_command(self, ctx, cmd_name):
        if cmd_name in self.lazy:
            module, _, attribute = self.lazy[cmd_name][0].partition(":")
            return getattr(importlib.import_module(module), attribute)
        return super().get_command(ctx, cmd_name)

    def resolve_command(self, ctx, args):
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise click.UsageError(f"no command '{args[0]}'; {near(args[0], self.list_commands(ctx))}", ctx)
        return super().resolve_command(ctx, args)

    def _short_help(self, ctx, name):
        found = self.get_command(ctx, name)
        return "" if found is None else found.get_short_help_str(80)

    def format_commands(self, ctx, formatter):
        rows = [(name, self.lazy[name][1] if name in self.lazy else self._short_help(ctx, name))
                for name in self.list_commands(ctx)]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


def _once_each(parser, ctx):
    """Makes a parser refuse an option that is given twice and takes one value: the first would be dropped in silence.

    A switch may be repeated, but not contradicted.
    """
    parse = parser.parse_args

    def parse_args(args):
        values, rest, order = parse(args)
        for option in {o for o in order if isinstance(o, click.Option) and not o.multiple and not o.count}:
            if order.count(option) > 1 and not (option.is_flag and not option.secondary_opts):
                raise click.UsageError(f"option {'/'.join(option.opts)} is given twice", ctx)
        return values, rest, order

    parser.parse_args = parse_args
    return parser


def command(name=None, text=None, **attributes):
    """Decorator for a recipe or a tool: a `Command` that has `--json` (passed on as `as_json`) and `--debug`.

    text : a module's docstring, shown by `--help` with its indented examples as they stand.
    """
    if text is not None:
        attributes["help"] = "\n\n".join(_kept_if_indented(part) for part in text.strip().split("\n\n"))

    def decorate(function):
        return click.command(name, cls=Command, **attributes)(json_option(function))
    return decorate


def recipe(text: str | None, quick: str, seed: str, folds: str = "K folds of the training part instead.",
           devices: str = "cpu"):
    """Decorator for a recipe: a `command` that has also the options which every recipe has.

    text : the module's docstring; quick, seed, folds : help of --quick, --seed and --cross-validate; devices : the
    default of --devices.
    """
    shared = [click.option("--cross-validate", type=click.IntRange(2), metavar="K", help=folds),
              click.option("--seed", default=0, type=click.IntRange(0), help=seed),
              click.option("--seeds", default=1, callback=_at_least_one, help="Number of runs, with seeds from --seed "
                                                                              "on."),
              click.option("--quick", is_flag=True, help=quick),
              devices_option(devices),
              click.option("--runs", default="runs", type=click.Path(), help="Folder for the run folders.")]

    def decorate(function):
        for option in reversed(shared):
            function = option(function)
        return command(text=text)(function)
    return decorate


def _at_least_one(_, option, value):
    if value < 1:
        raise ConfigError(f"{option.opts[0]} out of range", expected="at least 1", found=value)
    return value


def conclude(run, rows: list[dict], as_json: bool, summarised: list[dict] | None = None, summary: dict | None = None,
             shown: Sequence[list[dict]] | None = None, **report) -> None:
    """Ends a recipe: writes its report and result.json, prints the tables, where the report is, and the JSON line.

    Parameters
    ----------
    run : reporting.Run
        Named after the recipe.
    rows : list of dict
        One a network and seed (or fold), as `Run.finish` takes them.
    summarised : list of dict, optional
        A row a name, where there are several rows of each; 'table' in result.json.
    summary : dict, optional
        What else result.json and the JSON line have.
    shown : sequence of list of dict, optional
        The tables to print; by default the summarised rows, or else the rows.
    **report
        `pictures`, `notes` and `series` of `Run.finish`.
    """
    summary = {**(summary or {}), "table": summarised}
    path = run.finish(rows, summary, **report)
    click.echo("\n\n".join(table(each) for each in shown or [summarised or rows]))
    say(f"report: {path}")
    emit({"recipe": run.name, "run": str(run.folder), **summary, "rows": rows}, as_json)


def _kept_if_indented(paragraph):
    # click fills paragraphs, unless they begin with this mark.
    return f"\b\n{paragraph}" if paragraph.startswith("    ") else paragraph


def setting_options(without: Collection[str] = ()):
    """Decorator for a command: an option for each setting of a job, as text, None where it is not given.

    without : names that are left out.
    """
    from gluon_ft.finetune import settings

    def decorate(function):
        for one in reversed(list(settings.described().values())):
            if one.option is None or one.name in without:
                continue
            words, switch = settings.default_words(one.name), one.plain_kind == "bool"
            how: dict = {} if switch else {"type": str, "metavar": _metavar(one), **_class_of(one)}
            if one.about.several:
                how.update(multiple=True, callback=lambda _, __, given: ";".join(given) or None)
            function = click.option(
                f"{one.option}/--no{one.option[1:]}" if switch else one.option, one.name, default=None,
                show_default=False, help=one.about.help + (f"  [default: {words}]" if words else ""), **how)(function)
        return function
    return decorate


def setting_option(name: str, *options: str, default=None, help: str | None = None):
    """Decorator for a recipe: the option of one setting of a job, of that setting's type and range.

    options, default, help : by default the setting's own.
    """
    from gluon_ft.finetune import settings

    one = settings.described()[name]

    def checked(_, __, value):
        if value is not None:
            check_value(one, value)
        return value

    return click.option(*(options or (f"--{name.replace('_', '-')}",)), help=help or one.about.help, callback=checked,
                        type={"int": int, "float": float}.get(one.plain_kind, str), **_class_of(one),
                        default=one.default if default is None else default)


def devices_option(default: str = "auto"):
    """Decorator for a command: `--devices` (passed on as `devices`), the text that `runtime.devices.contexts` takes."""
    return setting_option("devices", default=default)


class _WithHiddenName(click.Option):
    """An option with one more name, which works and is not shown."""

    def __init__(self, *args, hidden_name: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.hidden_name = hidden_name

    def add_to_parser(self, parser, ctx):
        shown, self.opts = self.opts, [*self.opts, self.hidden_name]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown


def _class_of(one) -> dict:
    hidden = one.about.hidden_option
    return {} if hidden is None else {"cls": functools.partial(_WithHiddenName, hidden_name=hidden)}


def _metavar(one):
    return "PATH" if one.about.path else {"int": "N", "float": "X"}.get(one.plain_kind, "TEXT")


def json_option(function):
    """Adds `--json`: the last line on standard output is then one JSON object (see `emit`)."""
    return click.option("--json", "as_json", is_flag=True,
                        help="End with one JSON object on the last line of standard output.")(function)


def photos_and_assignments(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """(the folder or None, the texts key=value) of arguments; what exists is a folder, even with '=' in its name.

    Raises click.UsageError for two folders.
    """
    paths = [word for word in words if "=" not in word or os.path.exists(word)]
    if len(paths) > 1:
        raise click.UsageError(f"one folder of photos is expected, found {' and '.join(paths)}; settings are key=value")
    return (paths[0] if paths else None), [word for word in words if word not in paths]


def folder_options(function):
    """Adds `--labels-from` and `--classes-are-folders`, see `data.sources.folders.scan_by`."""
    function = click.option("--classes-are-folders", is_flag=True,
                            help="Take subfolders called train, val, test and the like for classes.")(function)
    return click.option("--labels-from", type=click.Choice(["folder", "name"]), default="folder",
                        help="Where a folder's classes stand: in the names of its subfolders, or in those of its files "
                             "(cat.0.jpg).")(function)


def engine_option(function):
    """Adds `--engine`, and runs the command in that engine, see `engine.choice.using`."""
    @functools.wraps(function)
    def run(*args, engine, **options):
        from gluon_ft.engine import choice

        with choice.using(engine):
            return function(*args, **options)

    return click.option("--engine", type=click.Choice(list(ENGINES)), default=ENGINES[0],
                        help="What runs the network on a CPU; auto: for many images the faster one, which is measured "
                             "once.")(run)


def tta_option(function):
    """Adds `--tta`, see `data.images.views`."""
    return click.option("--tta", type=click.Choice(["2", "4", "5", "10"]), callback=lambda _, __, n: n and int(n),
                        help="Test-time augmentation: average the probabilities of so many views of each image (parts "
                             "at several places and zooms, mirror images where the model's own preprocessing has "
                             "them).")(function)


def check_model(path: str | os.PathLike) -> None:
    """WeightsError for what is neither a file of parameters nor a folder."""
    from pathlib import Path

    from gluon_ft.errors import WeightsError
    from gluon_ft.weights import card

    path = Path(path)
    if not path.exists() or (path.is_file() and path.suffix != ".params" and not card.beside(path).is_file()):
        raise WeightsError("not a model" if path.exists() else "no such model", path=path,
                           expected="a .params file with its card beside it, or the folder of a run or of an export")


def wide_option(function):
    """Adds `--wide` (passed on as `wide`): tables with every column at its full width, see `show`."""
    return click.option("--wide", is_flag=True, help="Tables with every column at its full width.")(function)


def show(rows: Sequence[dict], columns: Sequence[str] | None = None, wide: bool = False,
         **fitting: Collection[str]) -> None:
    """Prints rows as a table that fits the terminal (80 columns where there is none), or in full where `wide`.

    fitting : `keep_end` and `whole` of `io.tables.table`.
    """
    click.echo(table(rows, columns, None if wide else terminal_width(), **fitting))


def say(*lines: object, err: bool = False) -> None:
    """Prints lines, with whatever would not stay in its line escaped: the names in them may be anybody's.

    err : on standard error.
    """
    click.echo("\n".join(map(escaped, lines)), err=err)


def _debug_option():
    # Its value is read by `_run` from the arguments, since most errors come when no context is left to ask.
    return click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error.")


def _run(main, args, prog_name, standalone_mode, **extra):
    if not standalone_mode:
        return main(args, prog_name, standalone_mode=False, **extra)
    argv = list(sys.argv[1:] if args is None else args)
    _print_anything()
    # The commands draw without a backend; Matplotlib would refuse to be imported for one that it does not know.
    os.environ.pop("MPLBACKEND", None)
    own, warnings.formatwarning = warnings.formatwarning, _warning_line
    try:
        with signals.raised("interrupted"):
            code = main(args, prog_name, standalone_mode=False, **extra)
        # A reader that went away is noticed here rather than when Python closes.
        sys.stdout.flush()
    except click.ClickException as error:
        _fail(_one_line(error), argv)
    except ImportError as error:
        # A package that is missing or cannot be loaded: `doctor` says which, and runs without MXNet.
        _fail(f"{error}; see gluon-ft doctor", argv)
    except UserError as error:
        _fail(str(error), argv)
    except (KeyboardInterrupt, click.Abort) as error:
        # click turns the one into the other.
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        say(str(cause or "") or "interrupted", err=True)
        sys.exit(getattr(cause, "status", EXIT_INTERRUPTED))
    except BrokenPipeError:
        _discard_output()
        sys.exit(EXIT_FAILURE)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror), argv)
    finally:
        warnings.formatwarning = own
    sys.exit(code if isinstance(code, int) and not isinstance(code, bool) else 0)


def _warning_line(message, category, filename, lineno, line=None) -> str:
    return f"warning: {escaped(message)}\n"


def _print_anything() -> None:
    """What the encoding of the output lacks is printed as `\\u732b`, and is no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(line, argv):
    options = argv[:argv.index("--")] if "--" in argv else argv
    if "--debug" in options:
        traceback.print_exc()
    say(f"error: {line}", err=True)
    sys.exit(EXIT_USER_ERROR)


def _discard_output() -> None:
    """Nobody reads standard output any more: what is still buffered goes nowhere, without another error."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError, AttributeError):
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open until the process ends)


def _one_line(error: click.ClickException) -> str:
    ctx = getattr(error, "ctx", None)
    if isinstance(error, click.NoSuchOption):
        # Written here whole, since the wording and the suggestions differ from click 8.1 to 8.5.
        known = [o for p in ctx.command.get_params(ctx) for o in p.opts + p.secondary_opts
                 if o.startswith("-")] if ctx else error.possibilities or []
        message = f"no such option {error.option_name}; {near(error.option_name, known)}"
    else:
        message = " ".join(error.format_message().split()).rstrip(".")
        message = message[:1].lower() + message[1:]
    return f"{message}; see {ctx.command_path} --help" if ctx else message


def emit(result: dict, as_json: bool) -> None:
    """Prints `result` as one line of JSON where `--json` was given.

    NumPy numbers and arrays, sets and paths are allowed in it; NaN and infinity, which JSON lacks, become null.
    """
    if as_json:
        print(json.dumps(plain(result), allow_nan=False), flush=True)
