#!/bin/sh
# All tests: run.sh PYTHON [PYTEST_ARGUMENT...]
#
# Most tests keep one core busy. Long ones that are marked `beside` run beside all others,
# in a process of their own; what that says comes last. The counts on a real SLURM are
# not: they come late among the others, and have the machine for themselves.
python=$1
shift
log=$(mktemp)
trap 'kill "$beside" 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

"$python" -m pytest -m beside "$@" >"$log" 2>&1 &
beside=$!
"$python" -m pytest -m "not beside" "$@"
others=$?
echo "tests beside them:"
wait "$beside"
status=$?
cat "$log"

# 5: none of those asked for.
[ "$status" -eq 5 ] && exit "$others"
[ "$others" -eq 5 ] || [ "$others" -eq 0 ] || exit "$others"
exit "$status"
