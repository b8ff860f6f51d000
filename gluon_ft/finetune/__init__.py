"""A whole job: from a folder of photos to a fine-tuned, evaluated, saved and reported network."""
from gluon_ft.finetune.run import Outcome, train
from gluon_ft.finetune.settings import JobSettings

__all__ = ["JobSettings", "Outcome", "train"]
