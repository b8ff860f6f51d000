#!/bin/sh
# Installs gluon_ft on every Python from 3.9 to 3.14 found here, with NumPy 1 (up to 3.12) and with NumPy 2, each into
# pythons/<version>-numpy<1 or 2>, and runs tests/smoke.py there. One line each; status 1 if one failed, 2 if there is
# no Python.
set -u
cd "$(dirname "$0")/.."
list=$(sh requirements/find_pythons.sh | sort -t. -k2 -n)
test -n "$list" || { echo 'error: no Python from 3.9 to 3.14 found' >&2; exit 2; }
mkdir -p pythons
failed=0

try() { # <version> <python> <name> <lock>
	start=$(date +%s)
	folder=pythons/$1-$3
	log=$folder.log
	if { test "$folder/ready" -nt "requirements/$4" && test "$folder/ready" -nt setup.py \
		|| sh requirements/make_env.sh "$2" "$folder" "$4"; } >"$log" 2>&1 \
		&& "$folder/bin/python" -W error tests/smoke.py >>"$log" 2>&1; then
		echo "$1 $3 ok, $(($(date +%s) - start)) s"
	else
		failed=1
		echo "$1 $3 failed: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1) (all of it: $log)"
	fi
}

# The list comes in on descriptor 3, so that nothing in the loop can swallow it.
while read -r version python <&3; do
	case "$version" in 3.9.*|3.1[0-2].*) try "$version" "$python" numpy1 lock.txt ;; esac
	try "$version" "$python" numpy2 lock-numpy2.txt
done 3<<EOF
$list
EOF
exit $failed
