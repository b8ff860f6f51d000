"""Looks for copies, contradictory labels and bad files in a data set."""
