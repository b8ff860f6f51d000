"""What advice goes by: facts about a data set, and about the features of pretrained weights on it."""
from __future__ import annotations

from dataclasses import dataclass

from gluon_ft.errors import ConfigError
from gluon_ft.io import settings as plain_settings


@dataclass(frozen=True)
class Facts:
    """What is known of a data set and of the weights for it; `gluon_ft.finetune.probe.measure` finds it.

    images, classes, smallest_class, largest_class : counts, of the training images.
    width, height : median, pixels, None where not known; grey : all images looked at are grey.
    weights : name of pretrained weights at hand that fit, None where there are none.
    input_size : of the network, pixels; stages : of the network, its output counted (`gluon_ft.stages`).
    probe, probe_spread : accuracy of a linear classifier on the pretrained features, and its standard deviation over
    the folds; None where it was not measured.
    eigenvalue : the largest of the features' second moments (mean outer product of a feature vector with itself, not
    centred), None where it was not measured.
    pixels : accuracy of the same classifier on the images shrunk to 16 x 16; chance : of always naming the most
    frequent class.
    seconds : that measuring took; notes : what else was found.
    batch : images of a batch where that is given, None where it is to be advised; accumulate : batches of one step.
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
        """The images are unlike the source's: its features tell the classes apart no better than the pixels do."""
        return self.probe is not None and self.pixels is not None and self.probe <= self.pixels + self.probe_spread

    def to_dict(self) -> dict:
        """As plain values, `imbalance`, `separable` and `different` included."""
        return {**plain_settings.to_dict(self), "imbalance": self.imbalance, "separable": self.separable,
                "different": self.different}
