"""Training: the loop, evaluation, schedules, precision, checkpoints."""
