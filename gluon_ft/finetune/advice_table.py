"""docs/advice.md: the tables of `gluon_ft.finetune.advice` as Markdown.

    python -m gluon_ft.finetune.advice_table > docs/advice.md
"""
from __future__ import annotations

from gluon_ft.finetune import advice

_HEAD = """# Which strategy, which settings

Written by `python -m gluon_ft.finetune.advice_table` from the tables in `gluon_ft/advice.py`; a test compares the two.

`gluon-ft advise FOLDER` counts the images, looks at their sizes, and runs at most 300 of them through the pretrained
network. The *probe* is the accuracy of a linear classifier on the features that come out, in cross-validation; *pixels*
is the accuracy of the same classifier on the images themselves, shrunk to 16 x 16; *chance* is the share of the most
frequent class. The way from chance to no error is (probe - chance) / (1 - chance). Features that do no better than
pixels say that the images are unlike those that the network was trained on. The features' *eigenvalue*, the largest of
their second moments, says how steep the loss of an output layer on them can be, and so how high its rate may be.

Thresholds whose source is 'ours' are this project's; `benchmarks/accuracy/advice.py` measures all five strategies on
four data sets and compares."""


def markdown() -> str:
    """The whole page."""
    return "\n\n".join([_HEAD, "## Strategies", _table(("strategy", "what is trained"), advice.STRATEGIES.items()),
                        "## Which one: the first condition that holds", _table(
                            ("", "condition", "strategy", "reason", "source"),
                            ((i, r.condition, r.strategy, r.reason, r.source)
                             for i, r in enumerate(advice.STRATEGY_RULES, 1))),
                        "## Settings: every condition that holds, later rows over earlier ones", _table(
                            ("condition", "of", "settings", "reason", "source"),
                            ((r.condition, ", ".join(r.strategies), _settings(r), r.reason, r.source)
                             for r in advice.SETTING_RULES)),
                        "Names are those of `gluon_ft.finetune.settings.JobSettings` and `gluon_ft.TrainConfig`.\n"])


def _settings(rule):
    return ", ".join(f"`{name}` {value.__doc__ if callable(value) else value}" for name, value in rule.settings.items())


def _table(columns, rows):
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    print(markdown(), end="")
