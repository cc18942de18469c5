#!/bin/sh
# All tests: run.sh PYTHON [PYTEST_ARGUMENT...]
#
# Those on a real SLURM take longest and mostly wait, so that they run beside all
# others, in a process of their own; what that says comes last.
python=$1
shift
log=$(mktemp)
trap 'kill "$slurm" 2>/dev/null; rm -f "$log"' EXIT
trap 'exit 130' INT TERM

"$python" -m pytest -m slurm "$@" >"$log" 2>&1 &
slurm=$!
"$python" -m pytest -m "not slurm" "$@"
others=$?
echo "tests on SLURM:"
wait "$slurm"
status=$?
cat "$log"

# 5: none of those asked for.
[ "$status" -eq 5 ] && exit "$others"
[ "$others" -eq 5 ] || [ "$others" -eq 0 ] || exit "$others"
exit "$status"
