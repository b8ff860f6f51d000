#!/bin/sh
# Prints "<version> <path>" for each Python from 3.9 to 3.14 found here, one line a minor version, 3.11 first (the
# version that everything was measured on). Looks on PATH, then in pyenv's folder (whose shims may refuse to run).
set -eu
roots="${PYENV_ROOT:-$HOME/.pyenv}/versions"
for minor in 11 12 13 14 10 9; do
	# Only pyenv's own folders go before PATH: a shim answers for whichever version is selected, or not at all.
	for python in $(ls -d "$roots"/3.$minor.*/bin/python3.$minor 2>/dev/null | sort -t. -k4 -n -r) \
		"python3.$minor" python3 python; do
		found=$("$python" -c 'import sys, ssl, zlib, ctypes
print("%d.%d.%d" % sys.version_info[:3], sys.executable)' 2>/dev/null) || continue
		case "$found" in "3.$minor."*) echo "$found"; break ;; esac
	done
done
