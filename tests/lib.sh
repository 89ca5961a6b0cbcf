# For test scripts: . tests/lib.sh; then  check "name" command...  and  finish. Prints TAP.
ECT=$(pwd)/${BUILD:-build}/ect
TMP=$(mktemp -d "${TEST_TMP:-/tmp}/sh.XXXXXX")
export ECT_WEIGHTS="$TMP/weights" # absent: what a machine has must not show
tap_n=0 tap_bad=0
ok() { tap_n=$((tap_n + 1)); echo "ok $tap_n - $1"; }
not_ok() { tap_n=$((tap_n + 1)); tap_bad=$((tap_bad + 1)); echo "not ok $tap_n - $1"; shift; [ $# -eq 0 ] || printf '%s\n' "$*" | sed 's/^/# /'; }
skip() { tap_n=$((tap_n + 1)); echo "ok $tap_n - $1 # SKIP $2"; }
# check NAME COMMAND...: passes if the command succeeds
check() { name=$1; shift; if out=$("$@" 2>&1); then ok "$name"; else not_ok "$name" "$* -> $?: $out"; fi; }
# exits NAME CODE COMMAND...: passes if the command exits with CODE; its output is in $out
exits() { name=$1; want=$2; shift 2; out=$("$@" 2>&1); rc=$?; if [ $rc -eq "$want" ]; then ok "$name"; else not_ok "$name" "$*: exit $rc, not $want: $out"; fi; }
# has NAME TEXT: passes if $out holds TEXT
has() { case $out in *"$2"*) ok "$1";; *) not_ok "$1" "no '$2' in: $out";; esac; }
finish() { echo "1..$tap_n"; [ $tap_bad -eq 0 ]; }
