"""Reporting: the run folder, curves of several runs in one picture, and the report in one HTML file."""
from gluon_ft.reporting.plots import curves, image_grid
from gluon_ft.reporting.run import Run, read_metrics, summarise

__all__ = ["Run", "curves", "image_grid", "read_metrics", "summarise"]
