"""report.html: one page that stands by itself, from a run's results, histories and images."""
from gluon_ft.reporting.report.evaluated import Evaluated, Story
from gluon_ft.reporting.report.page import render
from gluon_ft.reporting.report.thumbnails import Picture
from gluon_ft.reporting.report.words import cell, details, flatten, percent

__all__ = ["Evaluated", "Picture", "Story", "cell", "details", "flatten", "percent", "render"]
