#!/bin/sh
# Renews lock.txt: one file for every Python from 3.9 to 3.12, with environment markers (needs `pip install uv`).
set -eu
cd "$(dirname "$0")/.."
uv pip compile setup.py requirements/lock.in --extra cpu --extra dev --override requirements/overrides.txt \
	--universal --python-version 3.9 --no-header --no-emit-find-links --no-emit-index-url --no-annotate \
	--quiet --output-file requirements/lock.txt
