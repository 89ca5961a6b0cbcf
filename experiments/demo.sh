#!/bin/sh
# What `make demo` runs: the sweep of demo.lua, its report on the terminal, and the same as one HTML page. Run it again: what is done
# is not done twice. Usage: sh experiments/demo.sh BUILD
set -u
build=${1:-build}
ect=$build/ect
dir=$build/demo
ledger=$dir/ledger.db
cd "$(dirname "$0")/.." || exit 1
mkdir -p "$dir" || exit 1
"$ect" run experiments/demo.lua --ledger "$ledger"
rc=$?
# 3: some runs failed or diverged; the report shows what there is
[ $rc -eq 0 ] || [ $rc -eq 3 ] || exit $rc
"$ect" report --ledger "$ledger" || exit $?
"$ect" report --ledger "$ledger" --out "$dir/report.html" || exit $?
cat <<END

ledger   $ledger
report   $dir/report.html (open it in a browser)
script   experiments/demo.lua

Try next:
  $ect ls --ledger $ledger
  $ect show @-1 --ledger $ledger
  $ect pareto --min flops_total --min fd_random@2 --ledger $ledger
  $ect sample @-1 --ledger $ledger --out samples.png
  $ect run experiments/demo.lua -n --ledger $ledger
END
exit $rc
