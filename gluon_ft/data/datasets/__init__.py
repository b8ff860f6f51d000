"""Public data sets, and drawn pictures where there are none."""
