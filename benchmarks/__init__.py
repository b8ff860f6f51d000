"""Measures gluon_ft: accuracy, speed, against other people's programs, one commit against another; see README.md."""
