# Killed and resumed: the bytes of a run that was never touched, and a ledger that proves where the second process began.
. tests/lib.sh
cd "$TMP" || exit 1
export OMP_WAIT_POLICY=passive
cat > long.lua <<'END'
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
ect.run "long" {
    ect.recipe "digits-ect" { net = net, batch = 16, iters = ect.arg("n", 400), dropout = 0.1, ckpt = { every = 7 }, log = { every = 5 } },
    eval = { nfe = { 1 }, samples = 64, ema = "std05" },
}
END
n=200; [ -n "${ECT_CHECK:-}" ] && n=120
run="$ECT run long.lua --set n=$n"
q() { "$ECT" sql "$2" --ledger "$1" --csv | tail -n +2 | tr -d '\r'; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }
final=ckpt/step-000000$n.safetensors
# A checkpoint beyond a random step is there: prints the pid that holds the run's lock.
wait_for_step() { # LEDGER-STEM STEP
    for i in $(seq 1 600); do
        for f in "$1".runs/*/ckpt/step-*.safetensors; do
            s=${f##*step-}; s=$(echo "${s%.safetensors}" | sed 's/^0*//')
            [ -e "$f" ] && [ "${s:-0}" -ge "$2" ] && { cat "$1".runs/*/lock; return 0; }
        done
        sleep 0.02
    done
    return 1
}
random() { awk -v s="$(date +%N)$$" -v n="$n" 'BEGIN { srand(s); print int(n / 10 + rand() * n / 2) }'; }

exits "a run never touched" 0 $run --ledger a.db
is "in one process" "$(q a.db "SELECT group_concat(from_step) FROM v_segment")" 0

step=$(random)
$run --ledger b.db > b.out 2>&1 & scheduler=$!
pid=$(wait_for_step b "$step") && kill -KILL "$pid"
wait $scheduler; rc=$?
is "a worker killed after step $step: the command ends well" $rc 0
if cmp -s a.runs/*/$final b.runs/*/$final; then ok "same bytes"; else not_ok "same bytes" "$(cat b.out)"; fi
is "two processes" "$(q b.db "SELECT count(*) FROM v_segment")" 2
is "the second began at a checkpoint" "$(q b.db "SELECT from_step >= $step AND from_step < $n FROM v_segment WHERE segment = 2")" 1
is "curves are the same" "$(q b.db "SELECT sum(value), count(*) FROM v_metric")" "$(q a.db "SELECT sum(value), count(*) FROM v_metric")"

step=$(random)
$run --ledger c.db > c.out 2>&1 & scheduler=$!
pid=$(wait_for_step c "$step") && kill -KILL $scheduler
wait $scheduler 2> /dev/null
for i in $(seq 1 500); do kill -0 "$pid" 2> /dev/null || break; sleep 0.02; done
if kill -0 "$pid" 2> /dev/null; then not_ok "the scheduler killed: its worker ends by itself"; else ok "the scheduler killed: its worker ends by itself"; fi
is "the run is not left running" "$(q c.db "SELECT status FROM v_run")" interrupted
exits "the same command goes on" 0 $run --ledger c.db
if cmp -s a.runs/*/$final c.runs/*/$final; then ok "same bytes"; else not_ok "same bytes" "$(cat c.out)"; fi
is "it began where the first stopped" "$(q c.db "SELECT from_step > 0 FROM v_segment WHERE segment = 2")" 1

step=$(random)
$run --ledger d.db > d.out 2>&1 & scheduler=$!
pid=$(wait_for_step d "$step") && kill -INT $scheduler
wait $scheduler; rc=$?
is "SIGINT: interrupted and resumable" $rc 75
out=$(cat d.out)
has "says how to go on" "goes on from the checkpoints"
exits "the same command goes on" 0 $run --ledger d.db
if cmp -s a.runs/*/$final d.runs/*/$final; then ok "same bytes"; else not_ok "same bytes"; fi
is "only the remaining steps" "$(q d.db "SELECT count(*) FROM v_segment WHERE segment = 2 AND from_step >= $step")" 1

# two commands at once: one trains, the other waits for it
$run --ledger f.db > f1.out 2>&1 & first=$!
$run --ledger f.db > f2.out 2>&1; rc2=$?
wait $first; rc1=$?
is "two commands at once both end well" "$rc1 $rc2" "0 0"
is "and train once" "$(q f.db "SELECT count(*) FROM v_segment")" 1
if cmp -s a.runs/*/$final f.runs/*/$final; then ok "same bytes"; else not_ok "same bytes" "$(cat f1.out f2.out)"; fi

# a new command while the worker of a killed one is still there
step=$(random)
$run --ledger g.db > g.out 2>&1 & scheduler=$!
pid=$(wait_for_step g "$step") && kill -KILL $scheduler
exits "at once after the scheduler was killed" 0 $run --ledger g.db
wait $scheduler 2> /dev/null
if cmp -s a.runs/*/$final g.runs/*/$final; then ok "same bytes"; else not_ok "same bytes" "$out"; fi

# all at once: worker and scheduler
step=$(random)
$run --ledger e.db > e.out 2>&1 & scheduler=$!
pid=$(wait_for_step e "$step") && kill -KILL $scheduler "$pid"
wait $scheduler 2> /dev/null
exits "ls after both were killed" 0 "$ECT" ls --ledger e.db
has "ls: nobody runs" "stale"
exits "both killed: the same command goes on" 0 $run --ledger e.db
if cmp -s a.runs/*/$final e.runs/*/$final; then ok "same bytes"; else not_ok "same bytes"; fi
finish
