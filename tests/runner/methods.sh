# Objectives on a grid and distillation, from a script to the ledger: who starts from whom, what a pass costs, what is refused.
. tests/lib.sh
DATA=$(pwd)/experiments
export ECT_DATA="$DATA" OMP_WAIT_POLICY=passive
cd "$TMP" || exit 1
q() { "$ECT" sql "$1" --csv | tail -n +2 | tr -d '\r'; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }
cat > methods.lua <<'END'
local ect = require "ect"
local small = { net = { width = 8, mult = { 1 }, attn = {} }, iters = 8, batch = 16 }
local eval = { sampler = "ect", nfe = { 1, 2 }, ema = "std05", samples = 50, metrics = { "fd_pixel" } }
local pre = ect.run "pre" { ect.recipe "digits-edm" (small), eval = eval }
local s = ect.sweep "methods" { base = ect.recipe "digits-ect-discrete" (small), init = pre:weights { ema = "std05" }, eval = eval }
local function settings(name)
    local all = {}
    for _, key in ipairs { "target", "pair", "curriculum", "weight", "metric", "sigma_min", "c", "loss.teacher", "loss.teacher_ema" } do
        all[key] = ect.recipe(name)[key]
    end
    return all
end
s:ablate { method = { ict = settings "digits-ict", ct = settings "digits-ct", cd = settings "digits-cd" } }
END
exits "the script" 0 "$ECT" run methods.lua
has "all runs" "5 of 5 runs done"
is "evaluations" "$(q "SELECT count(*) FROM v_eval WHERE value > 0")" 10
is "forward passes of an image" "$(q "SELECT group_concat(c, ' ') FROM (SELECT cell || ':' || CAST(round(flops_executed * 3.0 /
    (SELECT flops_executed FROM v_run WHERE sweep = 'pre'), 6) AS TEXT) c FROM v_run WHERE sweep = 'methods' ORDER BY cell)")" \
    "base:4.0 method=cd:6.0 method=ct:4.0 method=ict:4.0"
is "the convention agrees" "$(q "SELECT count(*) FROM v_run WHERE abs(flops_nominal - flops_executed) < 1")" 5
is "all start from the same run" "$(q "SELECT count(DISTINCT parent) || ' ' || count(parent) FROM v_run WHERE sweep = 'methods'")" "1 4"
exits "the same again" 0 "$ECT" run methods.lua
has "nothing to do" "nothing to do: 5 runs done"
cat > alone.lua <<'END'
local ect = require "ect"
ect.run "alone" { ect.recipe "digits-cd" { iters = 4 } }
END
exits "distillation of nothing" 2 "$ECT" run alone.lua
has "says what to do" "init = weights of a trained network"
exits "a metric without its weights" 6 "$ECT" run methods.lua --set methods:metric=lpips --set methods:target=ect
has "says where they come from" "ect weights"
finish
