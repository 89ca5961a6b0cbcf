# A sweep from script to report: what is done is not done twice, what changed is done alone.
. tests/lib.sh
cp tests/runner/tiny.lua "$TMP"; cd "$TMP" || exit 1
export OMP_WAIT_POLICY=passive
q() { "$ECT" sql "$1" --csv | tail -n +2 | tr -d '\r'; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }

exits "dry run without a ledger" 0 "$ECT" run tiny.lua -n
has "dry run: cells" "dropout=0.1"
has "dry run: what is missing" "2 missing"
if [ -e ect.db ]; then not_ok "dry run writes nothing"; else ok "dry run writes nothing"; fi

exits "the sweep" 0 "$ECT" run tiny.lua
has "all runs" "6 of 6 runs done"
is "runs done" "$(q "SELECT count(*) FROM v_run WHERE status = 'done' AND step = iters")" 6
is "pretraining is an ordinary run" "$(q "SELECT count(*) FROM v_run WHERE cell = 'pretrain' AND sweep = 'pre'")" 2
is "tuning k starts from pretraining k" "$(q "SELECT count(*) FROM v_run r JOIN v_run p ON p.run = r.parent WHERE r.sweep = 'tiny' AND p.cell = 'pretrain' AND p.replicate = r.replicate")" 4
is "paired seeds" "$(q "SELECT count(DISTINCT seed) FROM v_run WHERE sweep = 'tiny'")" 2
is "evaluations" "$(q "SELECT count(*) FROM v_eval WHERE value IS NOT NULL AND samples = 64")" 20
is "controls" "$(q "SELECT count(DISTINCT name) FROM v_control")" 2
is "curves" "$(q "SELECT count(*) > 0 FROM v_metric WHERE key = 'loss'")" 1
is "pictures of replicate 1" "$(q "SELECT count(*) FROM v_artifact a JOIN v_run r ON r.run = a.run WHERE r.sweep = 'tiny' AND r.replicate = 1")" 8
is "pictures of replicate 2" "$(q "SELECT count(*) FROM v_artifact a JOIN v_run r ON r.run = a.run WHERE r.replicate = 2")" 0
for key in ect.version binary.sha git.revision cpu isa threads device device.libraries sqlite lua data.sha host; do
    is "provenance: $key" "$(q "SELECT count(*) FROM v_provenance WHERE key = '$key'")" 6
done
is "FLOPs add up" "$(q "SELECT count(*) FROM v_run r JOIN v_run p ON p.run = r.parent WHERE r.flops_total = r.flops_executed + p.flops_executed AND r.flops_executed > 0")" 4
id=$(q "SELECT run FROM v_run WHERE cell = 'base' AND replicate = 1")
if [ -s "ect.runs/$id/ckpt/step-000000016.safetensors" ]; then ok "checkpoint where v_checkpoint says"; else not_ok "checkpoint where v_checkpoint says"; fi

begin=$(date +%s%N)
exits "the same again" 0 "$ECT" run tiny.lua
ms=$((($(date +%s%N) - begin) / 1000000))
has "nothing to do" "nothing to do: 6 runs done"
limit=1000; [ -n "${ECT_CHECK:-}" ] && limit=8000
if [ $ms -lt $limit ]; then ok "nothing to do, in under a second"; else not_ok "nothing to do, in under a second" "$ms ms"; fi

# a changed training setting: only its cell
sed 's/{ 0, 0.1 }/{ 0, 0.2 }/' tiny.lua > changed.lua
exits "changed training setting" 0 "$ECT" run changed.lua --json
has "only its two runs are started" '"started": 2'
is "the others were not trained again" "$(q "SELECT max(n) FROM (SELECT count(*) AS n FROM v_segment GROUP BY run)")" 1
is "runs in all" "$(q "SELECT count(*) FROM v_run WHERE status = 'done'")" 8

# a changed evaluation setting: no training
before=$(q "SELECT count(*) || ' ' || sum(from_step) FROM v_segment")
exits "changed evaluation setting" 0 "$ECT" run tiny.lua --set samples=65
is "nothing was trained" "$(q "SELECT count(*) || ' ' || sum(from_step) FROM v_segment")" "$before"
is "new evaluations" "$(q "SELECT count(*) FROM v_eval WHERE samples = 65")" 20
exits "an evaluation of an earlier checkpoint that is there" 0 "$ECT" run tiny.lua --set at=50%
is "its rows" "$(q "SELECT count(*) FROM v_eval WHERE step = 8")" 16
exits "an evaluation whose checkpoint was not kept" 3 "$ECT" run tiny.lua --set at=25%
has "is said, not trained" "checkpoint that was not kept"
is "still nothing trained" "$(q "SELECT count(*) || ' ' || sum(from_step) FROM v_segment")" "$before"

# two closures that differ in an upvalue are two cells
cat > closures.lua <<'END'
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1 }, blocks = 1, attn = {} }
local s = ect.sweep "closures" { base = ect.recipe "digits-ect" { net = net, batch = 8, iters = 2 }, eval = { samples = 64, ema = "std05", nfe = { 1 } } }
local maps = {}
for i, k in ipairs { 2, 4 } do maps["k" .. i] = function(t, s) return t * (1 - 1 / k) end end
s:grid { mapping = maps }
END
exits "closures" 0 "$ECT" run closures.lua -j2
is "are two cells and two runs" "$(q "SELECT count(DISTINCT config_hash) FROM v_run WHERE sweep = 'closures'")" 2

# looking
exits "ls" 0 "$ECT" ls
has "ls shows status" "done"
exits "ls --json --sweep" 0 "$ECT" ls --sweep tiny --json
has "ls as JSON" '"status": "done"'
exits "show by a prefix" 0 "$ECT" show "$(echo "$id" | cut -c1-8)"
has "show: settings" "net.width"
has "show: evaluations" "fd_random"
exits "show --json" 0 "$ECT" show "$id" --json
exits "show of nothing" 2 "$ECT" show zzzz
other=$(q "SELECT run FROM v_run WHERE cell = 'dropout=0.1' AND replicate = 1")
exits "diff" 0 "$ECT" diff "$id" "$other"
has "diff: the setting" "dropout"
case $out in *net.width*) not_ok "diff: only what differs" "$out";; *) ok "diff: only what differs";; esac
exits "pareto" 0 "$ECT" pareto --min flops_total --min fd_random@2 --sweep tiny --samples 64
has "pareto marks the front" "*"
exits "pareto refuses to mix evaluators" 2 "$ECT" pareto --min flops_total --min fd_random@2 --sweep tiny
exits "pareto by nfe" 0 "$ECT" pareto --min flops_total --min fd_random --by nfe --sweep tiny --samples 64 --json
has "pareto: groups" '"nfe": "2"'
exits "pareto by what is no factor" 2 "$ECT" pareto --min flops_total --min fd_random@2 --by mappign --sweep tiny --samples 64
has "pareto: what --by takes" "factor of the sweep"
exits "pareto of an unknown key" 2 "$ECT" pareto --min flops_totl --min fd_random@2
has "pareto: nearest key" "flops_total"
exits "sql" 0 "$ECT" sql "SELECT run FROM v_run" --json
exits "sql cannot write" 2 "$ECT" sql "DELETE FROM run"
exits "sql cannot attach" 2 "$ECT" sql "ATTACH 'x.db' AS x"
is "and nothing is gone" "$(q "SELECT count(*) FROM v_run WHERE sweep <> 'closures'")" 8
exits "report" 0 "$ECT" report --sweep tiny
has "report: cells" "dropout"
exits "report to a file" 0 "$ECT" report --sweep tiny --out r.html
if grep -q "</html>" r.html; then ok "is a page"; else not_ok "is a page"; fi
exits "report --check" 0 "$ECT" report --sweep tiny --check r.html
echo x >> r.html
exits "report --check of a stale file" 4 "$ECT" report --sweep tiny --check r.html
exits "unknown report" 2 "$ECT" report nosuch
exits "ledger from the environment" 0 env ECT_LEDGER="$TMP/ect.db" "$ECT" ls

# sampling: image i depends on its seed, not on how many are drawn
exits "sample to a grid" 0 "$ECT" sample "$id" --out a.png
exits "sample to npz" 0 "$ECT" sample "$id" --out a.npz --seeds 0-9 --nfe 2
exits "sample to a directory" 0 "$ECT" sample "$id" --out d1 --seeds 3-5
exits "one of them alone" 0 "$ECT" sample "$id" --out d2 --seeds 4
if cmp -s d1/000004.png d2/000004.png; then ok "the same image"; else not_ok "the same image"; fi
exits "sample with Heun" 0 "$ECT" sample "$id" --out h.png --sampler heun --nfe 3 --seeds 0-3
exits "sample with an even Heun count" 2 "$ECT" sample "$id" --sampler heun --nfe 4
for sampler in euler dpmpp-2m ancestral-ve; do
    exits "sample with $sampler" 0 "$ECT" sample "$id" --out "$sampler.png" --sampler "$sampler" --nfe 4 --seeds 0-3
    has "$sampler with as many evaluations" "$sampler with 4 evaluations"
done
exits "sample with ancestral-vp" 0 "$ECT" sample "$id" --out vp.png --sampler ancestral-vp --nfe 4 --seeds 0-3 --set eval.beta_max=3
exits "ancestral-vp with too few" 2 "$ECT" sample "$id" --sampler ancestral-vp --nfe 4
has "how many it needs" "more than 20"
exits "a velocity's sampler for a denoiser" 2 "$ECT" sample "$id" --sampler flow-euler --nfe 4
exits "an unknown sampler" 2 "$ECT" sample "$id" --sampler hein
has "nearest sampler" "did you mean 'heun'"
exits "sample with churn" 0 "$ECT" sample "$id" --out churn.png --sampler heun --nfe 3 --seeds 0-3 --set eval.churn=1
if cmp -s h.png churn.png; then not_ok "churn changes samples"; else ok "churn changes samples"; fi
exits "training settings stay" 2 "$ECT" sample "$id" --set batch=3
exits "labels for a network without" 2 "$ECT" sample "$id" --labels balanced
exits "an unknown policy" 2 "$ECT" sample "$id" --labels ballanced
has "nearest policy" "did you mean 'balanced'"
exits "sample from an unknown EMA" 2 "$ECT" sample "$id" --ema std99
exits "bad seeds" 2 "$ECT" sample "$id" --seeds 9-3
exits "eval adds values" 0 "$ECT" eval "$id" --samples 66 --metrics fd_pixel --nfe 1
is "its row" "$(q "SELECT count(*) FROM v_eval WHERE samples = 66")" 1
exits "fid needs its extractor" 6 "$ECT" eval "$id" --metrics fid
exits "fd_dinov2 needs its extractor" 6 "$ECT" eval "$id" --metrics fd_dinov2
exits "one cell by one evaluator" 0 "$ECT" eval "$id" --sampler heun --nfe 3 --samples 70 --metrics fd_pixel
exits "DPM-Solver++" 0 "$ECT" eval "$id" --sampler dpmpp-2m --nfe 3 --samples 70 --metrics fd_pixel
is "its row's sampler" "$(q "SELECT nfe FROM v_eval WHERE sampler = 'dpmpp-2m'")" 3
exits "pareto by a name with digits" 0 "$ECT" pareto --min flops_total --min fd_pixel@dpmpp-2m3 --sweep tiny
exits "the same with churn is another evaluation" 0 "$ECT" eval "$id" --sampler heun --nfe 3 --samples 70 --metrics fd_pixel --set eval.churn=1
is "two evaluators" "$(q "SELECT count(DISTINCT evaluator) FROM v_eval WHERE sampler = 'heun' AND samples = 70 AND run = '$id'")" 2
exits "settings it does not use change nothing" 0 "$ECT" eval "$id" --sampler dpmpp-2m --nfe 3 --samples 70 --metrics fd_pixel --set eval.churn=1
is "still one" "$(q "SELECT count(*) FROM v_eval WHERE sampler = 'dpmpp-2m'")" 1
exits "another cell by another" 0 "$ECT" eval "$other" --sampler heun --nfe 3 --samples 71 --metrics fd_pixel
exits "pareto refuses to compare them" 2 "$ECT" pareto --min flops_total --min fd_pixel@heun3 --sweep tiny
exits "unknown metric" 2 "$ECT" eval "$id" --metrics fd_pixl
has "nearest metric" "fd_pixel"
exits "kernel distance, precision and its companions" 0 "$ECT" eval "$id" --samples 67 --nfe 1 --metrics kd_random,precision_random,recall_random:k3,coverage_pixel,fd_random:n
is "their rows" "$(q "SELECT group_concat(metric, ' ') FROM (SELECT metric FROM v_eval WHERE samples = 67 ORDER BY metric)")" "coverage_pixel fd_random:n kd_random precision_random recall_random:k3"
exits "a measure without a space" 2 "$ECT" eval "$id" --metrics precision
has "the spaces" "precision_random"
exits "statistics of a data set" 0 "$ECT" stats digits --metric fd_random --out digits.npz
exits "statistics need their extractor" 6 "$ECT" stats digits
has "the command that gets it" "ect weights get inception"
exits "statistics of a kernel distance" 2 "$ECT" stats digits --metric kd_random
exits "against statistics from a file" 0 "$ECT" eval "$id" --samples 68 --nfe 1 --metrics fd_random --set eval.stats=digits.npz
exits "and from the data set" 0 "$ECT" eval "$id" --samples 68 --nfe 1 --metrics fd_random
is "the same value by two evaluators" "$(q "SELECT count(*), count(DISTINCT evaluator), max(value) - min(value) < 1e-9 FROM v_eval WHERE samples = 68")" "2,2,1"
exits "statistics that are not there" 6 "$ECT" eval "$id" --samples 68 --nfe 1 --metrics fd_random --set eval.stats=none.npz
exits "statistics of another length" 2 "$ECT" eval "$id" --samples 68 --nfe 1 --metrics fd_pixel --set eval.stats=digits.npz
exits "a kernel distance from moments" 2 "$ECT" eval "$id" --samples 68 --nfe 1 --metrics kd_random --set eval.stats=digits.npz
exits "a run without a sweep" 0 "$ECT" train digits-edm --set net.width=8 --set iters=4 --set batch=8 --set eval.nfe=1 --set eval.sampler=ect --set eval.samples=64
exits "the same train again" 0 "$ECT" train digits-edm --set net.width=8 --set iters=4 --set batch=8 --set eval.nfe=1 --set eval.sampler=ect --set eval.samples=64
has "does nothing" "nothing to do"
exits "a class-conditional run" 0 "$ECT" train digits-edm --set net.cond=true --set net.width=8 --set iters=4 --set batch=8 --set eval.nfe=1 --set eval.sampler=euler --set eval.samples=64 --set eval.labels=balanced
cond=$(q "SELECT run FROM v_param WHERE key = 'net.cond' AND text = 'true'")
is "the policy is in the identity" "$(q "SELECT count(*) FROM v_evaluator WHERE canon LIKE '%labels=balanced%'")" 2
exits "samples of one class" 0 "$ECT" sample "$cond" --labels class:3 --out c3.npz --seeds 0-4
has "the policy is said" "labels class:3"
exits "samples of another" 0 "$ECT" sample "$cond" --labels class:4 --out c4.npz --seeds 0-4
if cmp -s c3.npz c4.npz; then not_ok "labels are written"; else ok "labels are written"; fi
exits "a class that is not there" 2 "$ECT" sample "$cond" --labels class:10
finish
