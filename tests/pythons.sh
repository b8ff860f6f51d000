#!/bin/sh
# Installs gluon_ft on every Python from 3.9 to 3.12 found here, each into pythons/<version>, and runs tests/smoke.py
# there. One line each; status 1 if one failed, 2 if there is none.
set -u
cd "$(dirname "$0")/.."
list=$(sh requirements/find_pythons.sh | sort -t. -k2 -n)
test -n "$list" || { echo 'error: no Python from 3.9 to 3.12 found' >&2; exit 2; }
mkdir -p pythons
failed=0
# The list comes in on descriptor 3, so that nothing in the loop can swallow it.
while read -r version python <&3; do
	start=$(date +%s)
	log=pythons/$version.log
	if { test pythons/"$version"/ready -nt requirements/lock.txt && test pythons/"$version"/ready -nt setup.py \
		|| sh requirements/make_env.sh "$python" "pythons/$version"; } >"$log" 2>&1 \
		&& pythons/"$version"/bin/python -W error tests/smoke.py >>"$log" 2>&1; then
		echo "$version ok, $(($(date +%s) - start)) s"
	else
		failed=1
		echo "$version failed: $(grep -v '^[[:space:]]*$' "$log" | tail -n 1) (all of it: $log)"
	fi
done 3<<EOF
$list
EOF
exit $failed
