#!/bin/sh
# Installs gluon_ft on every Python from 3.9 to 3.14 found here, with NumPy 1 (up to 3.12) and with NumPy 2, each into
# pythons/<version>-numpy<1 or 2>, and runs tests/smoke.py there, then pytest with the arguments that it was given, if any
# (`sh tests/pythons.sh -m 'not slow'`). One line each; status 1 if one failed, 2 if there is no Python.
set -u
cd "$(dirname "$0")/.."
list=$(sh requirements/find_pythons.sh | sort -t. -k2 -n)
test -n "$list" || { echo 'error: no Python from 3.9 to 3.14 found' >&2; exit 2; }
mkdir -p pythons
failed=0

try() { # <version> <python> <name> <lock> <arguments of pytest>
	start=$(date +%s)
	folder=pythons/$1-$3
	log=$folder.log
	version=$1 python=$2 name=$3 lock=$4
	shift 4
	if { test "$folder/ready" -nt "requirements/$lock" && test "$folder/ready" -nt setup.py \
		|| sh requirements/make_env.sh "$python" "$folder" "$lock"; } >"$log" 2>&1 \
		&& "$folder/bin/python" -W error tests/smoke.py >>"$log" 2>&1 \
		&& { test $# -eq 0 || OMP_NUM_THREADS=1 "$folder/bin/python" -m pytest -q -n "${PROCESSES:-2}" --dist worksteal \
			"$@" >>"$log" 2>&1; }; then
		echo "$version $name ok, $(($(date +%s) - start)) s$(test $# -eq 0 || echo ": $(tail -n 1 "$log")")"
	else
		failed=1
		echo "$version $name failed: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1) (all of it: $log)"
	fi
}

# The list comes in on descriptor 3, so that nothing in the loop can swallow it.
while read -r version python <&3; do
	case "$version" in 3.9.*|3.1[0-2].*) try "$version" "$python" numpy1 lock.txt "$@" ;; esac
	try "$version" "$python" numpy2 lock-numpy2.txt "$@"
done 3<<EOF
$list
EOF
exit $failed
