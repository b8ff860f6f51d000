"""Advice: from facts about images and weights to a strategy and its settings, with reasons; pure functions over tables.

`STRATEGY_RULES` are tried in order and the first that holds decides; of `SETTING_RULES` all that hold are applied in
order, later ones over earlier ones. docs/advice.md shows both (written by tools/write_docs.py).
Thresholds whose source says "ours" are this project's, checked by benchmarks/accuracy/advice.py.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from gluon_ft.errors import ConfigError, near
from gluon_ft.io import settings as plain_settings
from gluon_ft.models import HEAD_LR_MULT, SMALL_EDGE

STRATEGIES = {
    "linear": "linear classifier on the pretrained features, its kind chosen by cross-validation",
    "svm": "linear SVM on the pretrained features",
    "head": "new output on frozen features",
    "last-stages": "new output and the last stage, the rest frozen",
    "everything": "all layers, from pretrained weights",
    "scratch": "all layers, from random weights",
}
ON_FEATURES = ("linear", "svm")  # fitted to features that are computed once; not trained by steps
FEW = 1000  # images
MANY = 5000  # images; above 'a few thousand'
SOLVED, MODERATE = 0.95, 0.8  # share of the way from chance to 1 that the probe comes
UNBALANCED = 3.0  # largest class over smallest
ENLARGED_EDGE, ENLARGED_SIZE = 96, 128  # pixels, BiT-HyperRule's
MOST_BATCH, LEAST_BATCH, STEPS = 32, 4, 8
RATE, RATE_BATCH = 0.1, 256  # Goyal et al.'s, from scratch, SGD with momentum 0.9
# D2L fine-tunes at 0.01, a tenth of its rate from scratch, with 128 images a batch and no momentum; momentum 0.9 makes
# each step count 1 / (1 - 0.9) times.
BODY_RATE, BODY_BATCH, MOMENTUM = 0.01, 128, 0.9
# Features whose second moments are smaller let the output layer take a higher rate than RATE's. Gradient descent with
# momentum m on a quadratic is stable below 2 (1 + m) / curvature, and a linear layer's softmax loss curves by half the
# eigenvalue at most: 7.6 / eigenvalue, where 32 images a step get 5 / eigenvalue, 7.1 by rounding.
EIGENVALUE = 400.0


@dataclass(frozen=True)
class Facts:
    """What is known of a data set and of the weights for it; `gluon_ft.finetune.probe.measure` finds it.

    Parameters
    ----------
    images, classes, smallest_class, largest_class : int
        Counts, of the training images.
    width, height : int, optional
        Medians, pixels.
    grey : bool
        All images looked at are grey.
    weights : str, optional
        Name of pretrained weights at hand that fit; None where there are none.
    input_size, stages : int, optional
        Of the network: pixels, and its stages with the output (`gluon_ft.stages`).
    probe, probe_spread : float
        Accuracy of a linear classifier on the pretrained features, and its standard deviation over the folds; None
        where it was not measured.
    eigenvalue : float, optional
        The largest of the features' second moments (mean outer product of a feature vector with itself, not centred).
    pixels, chance : float, optional
        Accuracy of the same classifier on the images shrunk to 16 x 16, and of always naming the most frequent class.
    seconds : float, optional
        That measuring took.
    notes : tuple of str
        What else was found.
    batch : int, optional
        Images of a batch where that is given; None where it is to be advised.
    accumulate : int
        Batches of one step.
    """

    images: int
    classes: int
    smallest_class: int
    largest_class: int
    width: int | None = None
    height: int | None = None
    grey: bool = False
    weights: str | None = None
    input_size: int | None = None
    stages: int | None = None
    probe: float | None = None
    probe_spread: float = 0.0
    eigenvalue: float | None = None
    pixels: float | None = None
    chance: float | None = None
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    batch: int | None = None
    accumulate: int = 1

    def __post_init__(self):
        counts = (self.images, self.classes, self.smallest_class, self.largest_class)
        holds = self.classes >= 2 and 1 <= self.smallest_class <= self.largest_class <= self.images
        if not holds:
            raise ConfigError("facts do not fit together", found="images, classes, smallest and largest class "
                              + ", ".join(map(str, counts)), expected="two classes or more, an image in each")

    @property
    def imbalance(self) -> float:
        """Largest class over smallest."""
        return self.largest_class / self.smallest_class

    @property
    def edge(self) -> int | None:
        """The shorter of the median edges, pixels."""
        return None if self.width is None or self.height is None else min(self.width, self.height)

    @property
    def separable(self) -> float | None:
        """How far the probe comes from chance (0) to no error (1)."""
        if self.probe is None or self.chance is None or self.chance >= 1:
            return None
        return (self.probe - self.chance) / (1 - self.chance)

    @property
    def different(self) -> bool:
        """The images are unlike the source's: its features tell the classes apart no better than the pixels do.

        Not where the features leave next to no error: then pixels may do as well, and nothing has to move all the same.
        """
        if self.probe is None or self.pixels is None or (self.separable or 0) >= SOLVED:
            return False
        return self.probe <= self.pixels + self.probe_spread

    def to_dict(self) -> dict:
        """As plain values, `imbalance`, `separable` and `different` included."""
        return {**plain_settings.to_dict(self), "imbalance": self.imbalance, "separable": self.separable,
                "different": self.different}


@dataclass(frozen=True)
class Advice:
    """What is advised.

    Attributes
    ----------
    strategy : str
        A key of `STRATEGIES`.
    settings : dict
        Values by their names in `finetune.JobSettings` (those of `TrainConfig` among them).
    reasons : list of (str, str)
        Text and source.
    """

    strategy: str
    settings: dict = field(default_factory=dict)
    reasons: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Rule:
    """A row of the tables.

    Attributes
    ----------
    condition : str
        In words, what `holds(facts)` computes.
    reason, source : str
        Why, and the paper or tutorial that says so, or 'ours'.
    strategy : str, optional
        What it decides, None in `SETTING_RULES`.
    strategies : tuple of str
        Those that its settings are for.
    settings : dict
        Name -> value, or function of the facts whose docstring says it in words.
    """

    condition: str
    holds: Callable[[Facts], bool]
    reason: str
    source: str
    strategy: str | None = None
    strategies: tuple[str, ...] = ()
    settings: dict = field(default_factory=dict)


def batch_size(facts: Facts) -> int:
    """power of two from 4 to 32 with 8 steps an epoch or more"""
    if facts.batch is not None:
        return facts.batch
    size = LEAST_BATCH
    while size < MOST_BATCH and facts.images >= 2 * size * STEPS:
        size *= 2
    return size


def _step(facts):
    """Images whose gradients one step of the optimiser goes by."""
    return batch_size(facts) * facts.accumulate


def scratch_rate(facts: Facts) -> float:
    """0.1 for 256 images a step, in proportion"""
    return round(RATE * _step(facts) / RATE_BATCH, 6)


def _head_factor(facts):
    """Head learning-rate factor from the features' curvature, a power of two."""
    return max(1.0, 2.0 ** round(math.log2(EIGENVALUE / facts.eigenvalue))) if facts.eigenvalue else 1.0


def head_rate(facts: Facts) -> float:
    """0.1 for 256 images a step, in proportion, times 400 / the features' eigenvalue (a power of two, 1 or more)"""
    return round(scratch_rate(facts) * _head_factor(facts), 6)


def head_mult(facts: Facts) -> float:
    """10, times 400 / the features' eigenvalue (a power of two, 1 or more)"""
    return HEAD_LR_MULT * _head_factor(facts)


def body_rate(facts: Facts) -> float:
    """0.01 for 128 images a step without momentum, in proportion, a tenth of that with momentum 0.9"""
    return round(BODY_RATE * _step(facts) / BODY_BATCH * (1 - MOMENTUM), 8)


def all_but_last_stage(facts: Facts) -> str:
    """all stages but the last and the output"""
    return str(max(1, (facts.stages or 3) - 2))


def input_size(edge: int | None, made_for: int | None) -> int | None:
    """The input's size in pixels for images with this shorter edge on a network made for `made_for`; None: its own."""
    if edge is None or made_for is None or edge >= ENLARGED_EDGE or made_for <= ENLARGED_SIZE:
        return None
    return ENLARGED_SIZE


def _size(facts):
    """128"""
    return input_size(facts.edge, facts.input_size)


CS231N = "CS231n notes, Transfer Learning: small or large x similar or different"
KERAS = "Keras blog, Building powerful image classification models using very little data"
KERAS_GUIDE = "Keras guide, Transfer learning and fine-tuning: BatchNormalization in inference mode"
D2L = "D2L 14.2, Fine-Tuning"
YOSINSKI = "Yosinski et al. 2014, How transferable are features in deep neural networks?"
KORNBLITH = "Kornblith et al. 2019, Do better ImageNet models transfer better?"
BIT = "Kolesnikov et al. 2020, Big Transfer (BiT-HyperRule)"
HE = "He et al. 2019, Rethinking ImageNet pre-training"
ULMFIT = "Howard and Ruder 2018, ULMFiT"
LECUN = "LeCun et al. 1998, Efficient BackProp: rate against the inputs' covariance"
GOYAL = "Goyal et al. 2017, Accurate, large minibatch SGD"
TOUVRON = "Touvron et al. 2019, Fixing the train-test resolution discrepancy"
BUDA = "Buda et al. 2018, A systematic study of the class imbalance problem"
TRAINED = ("head", "last-stages", "everything", "scratch")
TUNED = ("last-stages", "everything")

STRATEGY_RULES = (
    Rule("no pretrained weights that fit are at hand", lambda f: f.weights is None,
         "there is nothing to fine-tune; random weights need more images, more epochs and a higher rate", HE,
         "scratch"),
    Rule("the probe is no better on pretrained features than on pixels, beyond its spread", lambda f: f.different,
         "the images are unlike the source's, whose upper layers do not help here; they are a start, and every layer "
         "has to move", f"{CS231N}; {YOSINSKI}", "everything"),
    Rule(f"fewer than {FEW:,} images", lambda f: f.images < FEW,
         "a network that is fine-tuned on so few overfits; a linear classifier on its features does not",
         f"{KERAS}; {CS231N}; {KORNBLITH}", "linear"),
    Rule(f"the probe comes {SOLVED:.0%} of the way from chance to no error",
         lambda f: f.separable is not None and f.separable >= SOLVED,
         "the features separate the classes already, so that there is little left for the body to learn",
         f"{KORNBLITH}; threshold: ours", "head"),
    Rule(f"{MANY:,} images or more", lambda f: f.images >= MANY,
         "enough images to fine-tune all layers without overfitting", CS231N, "everything"),
    Rule(f"a few thousand images, and the probe comes {MODERATE:.0%} of the way",
         lambda f: f.separable is not None and f.separable >= MODERATE,
         "the images are like the source's: the general lower layers can stay, the specific upper ones are tuned",
         f"{KERAS}; {YOSINSKI}; threshold: ours", "last-stages"),
    Rule("a few thousand images otherwise", lambda f: True,
         "the features separate the classes only in part (or were not probed): all layers, the body with a tenth of "
         "the from-scratch rate, with augmentation", f"{D2L}; {CS231N}", "everything"),
)

SETTING_RULES = (
    Rule("linear, svm", lambda f: True, "what is learnt on is the feature vector of each image as in evaluation", KERAS,
         strategies=ON_FEATURES, settings={"freeze": "features", "augment": "none"}),
    Rule("linear, colour images", lambda f: not f.grey,
         "the mean of the features of an image and of its mirror image says more than the features of the image, at "
         "twice the computation; turn it off where left and right have a meaning", "ours", strategies=("linear",),
         settings={"mirror": True}),
    Rule("head", lambda f: True, "frozen features are computed once, so that epochs cost next to nothing", CS231N,
         strategies=("head",), settings={"freeze": "features", "augment": "none", "epochs": 40, "head_lr_mult": 1.0}),
    Rule("last-stages", lambda f: True, "the last stage is tuned with the output", KERAS, strategies=("last-stages",),
         settings={"freeze": all_but_last_stage}),
    Rule("everything, scratch", lambda f: True, "every layer learns", CS231N, strategies=("everything", "scratch"),
         settings={"freeze": "none"}),
    Rule("trained by steps", lambda f: True, "the rate goes with the batch, rises at first and then falls to 0",
         f"{GOYAL}; {BIT}", strategies=TRAINED,
         settings={"batch_size": batch_size, "schedule": "cosine", "warmup": 0.5}),
    Rule("scratch", lambda f: True, "what starts from random weights takes the from-scratch rate", GOYAL,
         strategies=("scratch",), settings={"lr": scratch_rate}),
    Rule("head", lambda f: True, "the output starts from random weights as well; on short feature vectors it needs a "
         "higher rate", f"{GOYAL}; {LECUN}", strategies=("head",), settings={"lr": head_rate}),
    Rule("last-stages, everything", lambda f: True,
         "pretrained layers take a tenth of the same procedure's from-scratch rate, the new output ten times as much "
         "as they", f"{D2L}; {LECUN}; epochs: MXNet's how-to for Caltech-256", strategies=TUNED,
         settings={"lr": body_rate, "head_lr_mult": head_mult, "epochs": 8}),
    Rule("last-stages, everything", lambda f: True,
         "BatchNorm keeps the source's statistics: those of a small batch are noise, which the layers would learn to "
         "live with in place of the classes", f"{KERAS_GUIDE}; {BIT}", strategies=TUNED,
         settings={"batchnorm": "frozen"}),
    Rule("scratch", lambda f: True, "what starts from random weights needs many more epochs", HE,
         strategies=("scratch",), settings={"epochs": 30, "head_lr_mult": 1.0, "wd": 5e-4}),
    Rule("colour images", lambda f: not f.grey,
         "parts of the image, mirrored, against overfitting; not below 35% of the area, since small parts show objects "
         "much larger than evaluation does", f"{KERAS}; {TOUVRON}", strategies=(*TUNED, "scratch"),
         settings={"augment": json.dumps({"scale": [0.35, 1.0]})}),
    Rule(f"edge below {SMALL_EDGE} pixels, colour", lambda f: not f.grey and f.edge is not None and f.edge < SMALL_EDGE,
         "less than half of a small image shows nothing", "ours", strategies=(*TUNED, "scratch"),
         settings={"augment": json.dumps({"scale": [0.5, 1.0]})}),
    Rule("grey images", lambda f: f.grey,
         "digits, letters and scans must not be mirrored: choose augmentation yourself",
         "ours", strategies=(*TUNED, "scratch"), settings={"augment": "none"}),
    Rule(f"edge below {ENLARGED_EDGE} pixels, network for more than {ENLARGED_SIZE}",
         lambda f: _size(f) is not None, "small images are enlarged, but not to the network's own size: it costs time "
         "and shows nothing more", BIT, strategies=(*ON_FEATURES, *TRAINED), settings={"size": _size}),
    Rule("everything, unlike the source", lambda f: f.different,
         "layers that have to move take the from-scratch rate, and more epochs", f"{CS231N}; {HE}",
         strategies=("everything",), settings={"lr": scratch_rate, "head_lr_mult": 1.0, "epochs": 12,
                                             "batchnorm": "train"}),
    Rule(f"{UNBALANCED:g} times as many images in one class as in another", lambda f: f.imbalance >= UNBALANCED,
         "each class is drawn equally often", BUDA, strategies=TRAINED, settings={"balance": "sampling"}),
    Rule("20,000 images or more", lambda f: f.images >= 20_000, "mixed images pay from this size on", BIT,
         strategies=("everything", "scratch"), settings={"mixup": 0.1}),
)


def advise(facts: Facts, strategy: str | None = None) -> Advice:
    """The strategy for the facts, its settings, and why.

    Parameters
    ----------
    facts : Facts
    strategy : str, optional
        One that is wanted whatever the facts say; its settings are still those for the facts.

    Raises
    ------
    ConfigError
        for an unknown strategy (with the near names), or one that needs weights where there are none.
    """
    if strategy is None:
        rule = next(rule for rule in STRATEGY_RULES if rule.holds(facts))
        strategy, reasons = rule.strategy or "", [(f"{_first_fact(rule, facts)}: {rule.reason}", rule.source)]
    else:
        _check(strategy, facts)
        reasons = [(f"'{strategy}' was asked for", "you")]
    applied = [(rule, {name: value(facts) if callable(value) else value for name, value in rule.settings.items()})
               for rule in SETTING_RULES if strategy in rule.strategies and rule.holds(facts)]
    decided = {name: rule for rule, values in applied for name in values}
    for rule, values in applied:
        standing = {name: value for name, value in values.items() if decided[name] is rule}
        if standing:
            reasons.append((f"{_listed(standing)}: {rule.reason}", rule.source))
    return Advice(strategy, {name: value for _, values in applied for name, value in values.items()}, reasons)


def _check(strategy, facts):
    if strategy not in STRATEGIES:
        raise ConfigError(f"unknown strategy '{strategy}'", remedy=near(strategy, STRATEGIES))
    if facts.weights is None and strategy != "scratch":
        raise ConfigError(f"strategy '{strategy}' builds on weights", found="no pretrained weights",
                          remedy="get some (gluon-ft weights list), or take 'scratch'")


def _first_fact(rule, facts):
    """The condition with the numbers that it was decided by."""
    known = [f"{facts.images:,} images"]
    if facts.probe is not None:
        known.append(f"probe {facts.probe:.2f} +- {facts.probe_spread:.2f}, pixels {facts.pixels:.2f}, chance "
                     f"{facts.chance:.2f}" if facts.pixels is not None and facts.chance is not None
                     else f"probe {facts.probe:.2f}")
    return f"{rule.condition} ({'; '.join(known)})"


def _listed(values):
    return ", ".join(f"{name} {value}" for name, value in values.items())
