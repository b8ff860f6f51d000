#!/bin/sh
# make_env.sh <python> <folder> [<lock>]: a virtual environment with the packages of requirements/lock.txt, or of another
# lock file there, and this project (editable).
# <folder>/ready is written last. An environment that has it and is merely older than the lock is brought up to date;
# one that lacks it, because a step failed or was interrupted, is made anew.
set -eu
python=$1
folder=$2
lock=${3:-lock.txt}
cd "$(dirname "$0")/.."

make_venv() {
	rm -rf "$folder"
	"$python" -m venv "$folder" >/dev/null 2>&1 && return
	# Debian's python3 without python3-venv has no ensurepip: pip then installs a pip into the environment.
	rm -rf "$folder"
	"$python" -m venv --without-pip "$folder" &&
		"$python" -m pip install --quiet --target \
			"$("$folder/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" pip
}

if ! { test -e "$folder/ready" && "$folder/bin/python" -m pip --version >/dev/null 2>&1; }; then
	make_venv || {
		echo "error: $python cannot make a virtual environment; apt-get install python3-venv python3-pip" >&2
		exit 1
	}
fi
rm -f "$folder/ready"
"$folder/bin/python" -m pip install --quiet --no-deps -r "requirements/$lock"
"$folder/bin/python" -m pip install --quiet --no-deps -e .
touch "$folder/ready"
