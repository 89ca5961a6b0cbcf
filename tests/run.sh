#!/bin/sh
# Runs the named tests (dir/name ...): programs under $BUILD/tests and scripts tests/dir/name.sh, both printing TAP. Shows one line
# a test, the output of what failed, and closes with "N passed, N failed".
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
export BUILD TEST_TMP="${TMPDIR:-/tmp}/ect-test.$$"
export OMP_WAIT_POLICY=passive
mkdir -p "$TEST_TMP"
trap 'rm -rf "$TEST_TMP"' EXIT
trap 'exit 130' INT TERM
passed=0 failed=0 bad=
for t in "$@"; do
    t=${t#tests/}; t=${t%.c}; t=${t%.sh}
    if [ -f "tests/$t.sh" ]; then cmd="sh tests/$t.sh"
    elif [ -x "$BUILD/tests/$t" ]; then cmd="$BUILD/tests/$t"
    else echo "no test named $t"; failed=$((failed + 1)); continue; fi
    log=$TEST_TMP/log
    start=$(date +%s)
    CMOCKA_MESSAGE_OUTPUT=TAP $cmd > "$log" 2>&1 < /dev/null
    rc=$?
    # a test killed by the sanitizer or a signal must not look like "fewer tests"
    # cmocka writes "not ok N # SKIP name" for what it skipped
    p=$(grep -c '^ok ' "$log"); s=$(grep -cE '^(not )?ok .*# SKIP' "$log")
    f=$(grep '^not ok ' "$log" | grep -cv '^not ok [0-9]* # SKIP')
    [ $rc -ne 0 ] && [ "$f" -eq 0 ] && f=1
    [ "$p" -eq 0 ] && [ "$f" -eq 0 ] && [ "$s" -eq 0 ] && f=1
    passed=$((passed + p)); failed=$((failed + f))
    note=; [ "$s" -gt 0 ] && note=" ($s skipped)"
    printf '%-28s %4d ok %3d failed  %3ds%s\n' "$t" "$p" "$f" $(($(date +%s) - start)) "$note"
    if [ "$f" -gt 0 ]; then bad="$bad $t"; grep -v '^ok ' "$log" | tail -60 | sed 's/^/    /'; fi
    grep '# SKIP' "$log" | sed -E 's/^(not )?ok [0-9]* */    /; s/^# /    /'
done
[ -n "$bad" ] && echo "failed:$bad"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
