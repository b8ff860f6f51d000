#!/bin/sh
# Renews lock.txt (NumPy 1 up to Python 3.12, NumPy 2 from 3.13 on) and lock-numpy2.txt (NumPy 2): each one file for
# every Python from 3.9 to 3.14, with environment markers; and lock-docs.txt, for Python 3.10 and later (needs
# `pip install uv`).
set -eu
cd "$(dirname "$0")/.."
for numpy in '' -numpy2; do
	uv pip compile setup.py requirements/lock.in --extra cpu --extra serve --extra dev \
		--override "requirements/overrides$numpy.txt" \
		--universal --python-version 3.9 --no-header --no-emit-find-links --no-emit-index-url --no-annotate \
		--quiet --output-file "requirements/lock$numpy.txt"
done
uv pip compile requirements/docs.in --universal --python-version 3.10 --no-header --no-emit-find-links \
	--no-emit-index-url --no-annotate --quiet --output-file requirements/lock-docs.txt
