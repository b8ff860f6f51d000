"""Writes the pages of docs/ that are made from tables of the package: advice.md and settings.md.

    python tools/write_docs.py
"""
from __future__ import annotations

from pathlib import Path

from gluon_ft.finetune import advice, settings

DOCS = Path(__file__).resolve().parents[1] / "docs"

ADVICE = """# Which strategy, which settings

Written by `python tools/write_docs.py` from the tables in `gluon_ft/finetune/advice.py`; a test compares the two.

`gluon-ft advise FOLDER` counts the images, looks at their sizes, and runs at most 300 of them through the pretrained
network. The *probe* is the accuracy of a linear classifier on the features that come out, in cross-validation; *pixels*
is the accuracy of the same classifier on the images themselves, shrunk to 16 x 16; *chance* is the share of the most
frequent class. The way from chance to no error is (probe - chance) / (1 - chance). Features that do no better than
pixels say that the images are unlike those that the network was trained on. The features' *eigenvalue*, the largest of
their second moments, says how steep the loss of an output layer on them can be, and so how high its rate may be.

Thresholds whose source is 'ours' are this project's; `benchmarks/accuracy/advice.py` measures all five strategies on
four data sets and compares."""

SETTINGS = """# Settings

Written by `python tools/write_docs.py` from the fields of `gluon_ft.TrainConfig` and
`gluon_ft.finetune.JobSettings`; a test compares the two.

`gluon-ft train` and `gluon-ft find-lr` take each of them as an option, as KEY=VALUE, or from a .toml or .json file
(`--config`); an option is stronger than KEY=VALUE, and that is stronger than the file. `gluon_ft.TrainConfig` takes
those of the second table, with the defaults in its column; a job decides those 'as advised' from the images, see
[advice.md](advice.md)."""


def advice_page() -> str:
    """docs/advice.md."""
    rules = ((number, rule.condition, rule.strategy, rule.reason, rule.source)
             for number, rule in enumerate(advice.STRATEGY_RULES, 1))
    return "\n\n".join([
        ADVICE, "## Strategies", _table(("strategy", "what is trained"), advice.STRATEGIES.items()),
        "## Which one: the first condition that holds",
        _table(("", "condition", "strategy", "reason", "source"), rules),
        "## Settings: every condition that holds, later rows over earlier ones",
        _table(("condition", "of", "settings", "reason", "source"),
               ((rule.condition, ", ".join(rule.strategies), _advised(rule), rule.reason, rule.source)
                for rule in advice.SETTING_RULES)),
        "Names are those of [settings.md](settings.md).\n"])


def settings_page() -> str:
    """docs/settings.md."""
    training = settings.schema.described(settings.TrainConfig)
    rows = {"job": [], "training": []}
    for name, one in settings.described().items():
        default = "" if one.default in (None, (), settings.AUTO) else f"`{one.default}`"
        of_a_job = settings.default_words(name) or ""
        shared = (f"`{name}`", f"`{one.option}`" if one.option else "PHOTOS")
        known = "" if one.about.choices == () and one.plain_kind == "str" else one.range or one.kind
        if name in training:
            rows["training"].append((*shared, default, of_a_job, known, one.about.help))
        else:
            rows["job"].append((*shared, of_a_job, known, one.about.help))
    return "\n\n".join([
        SETTINGS, "## Of a job", _table(("setting", "option", "default", "values", "meaning"), rows["job"]),
        "## Of training", _table(("setting", "option", "TrainConfig's default", "a job's default", "values", "meaning"),
                                 rows["training"])]) + "\n"


def _advised(rule) -> str:
    return ", ".join(f"`{name}` {value.__doc__ if callable(value) else value}" for name, value in rule.settings.items())


def _table(columns, rows) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


PAGES = {"advice.md": advice_page, "settings.md": settings_page}


if __name__ == "__main__":
    for file, page in PAGES.items():
        (DOCS / file).write_text(page(), encoding="utf-8")
