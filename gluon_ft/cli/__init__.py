"""One module a command of `gluon-ft`; `gluon_ft/cli.py` registers them."""
