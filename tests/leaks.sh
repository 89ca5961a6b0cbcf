#!/bin/sh
# A short run of the program under valgrind: no definite leak, no invalid access. oneDNN compiles code at run time, which valgrind does
# not follow on every CPU, so the run uses the portable path; pixels alone are compared, features would take minutes here.
set -u
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
command -v valgrind > /dev/null || { echo "valgrind is not installed: skipped"; exit 0; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/leaks.XXXXXX")
trap 'rm -rf "$dir"' EXIT
cat > "$dir/s.lua" <<'L'
local ect = require "ect"
local pre = ect.run "pre" { ect.recipe "digits-edm" { iters = 2, batch = 4, net = { width = 4, mult = { 1 }, attn = { 8 } } },
  eval = { sampler = "ect", nfe = {1}, samples = 20, ema = "raw", metrics = { "fd_pixel" } } }
local s = ect.sweep "leaks" { init = pre:weights { ema = "raw" }, eval = { nfe = {1, 2}, samples = 20, ema = "raw", metrics = { "fd_pixel" } },
  base = ect.recipe "digits-ect" { iters = 2, batch = 4, net = { width = 4, mult = { 1 }, attn = { 8 } }, dropout = 0.1 } }
s:ablate { c = {0, 0.03} }
L
run() { OMP_NUM_THREADS=1 valgrind -q --trace-children=yes --error-exitcode=99 --leak-check=full --errors-for-leak-kinds=definite \
    --suppressions=tests/valgrind.supp "$@"; }
run "$BUILD/ect" run "$dir/s.lua" --ledger "$dir/l.db" -j 1 --set threads=1 --device cpu-portable > "$dir/log" 2>&1 || { tail -60 "$dir/log"; echo "valgrind: errors in a run"; exit 1; }
run "$BUILD/ect" report --ledger "$dir/l.db" --format md > "$dir/log2" 2>&1 || { tail -60 "$dir/log2"; echo "valgrind: errors in a report"; exit 1; }
grep -q '==[0-9]*==' "$dir/log" "$dir/log2" && { cat "$dir/log" "$dir/log2"; exit 1; }
grep -q '3 of 3 runs done' "$dir/log" || { cat "$dir/log"; echo "valgrind: the run did not finish"; exit 1; }
echo "valgrind: no leak, no error"
