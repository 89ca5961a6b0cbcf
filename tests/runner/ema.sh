# Averages of other lengths: a script asks for one, commands make others, what cannot be is said before training where possible.
. tests/lib.sh
cd "$TMP" || exit 1
export OMP_WAIT_POLICY=passive
q() { "$ECT" sql "$1" --csv | tail -n +2 | tr -d '\r'; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }
script() { # SNAPSHOTS EVAL.EMA
    cat > ema.lua <<EOF
local ect = require "ect"
ect.run "pre" {
    ect.recipe "digits-edm" { net = { "songunet", width = 8, mult = { 1, 2 }, blocks = 1, attn = { 4 } }, batch = 8, iters = 16,
        ema = { ect.ema.power { std = 0.05 }, ect.ema.power { std = 0.1 } }, ["posthoc.snapshots"] = $1 },
    eval = { sampler = "ect", nfe = { 1 }, ema = "$2", samples = 32, metrics = { "fd_pixel" } },
}
EOF
}
script 0 posthoc:0.07
exits "an average that needs snapshots" 2 "$ECT" run ema.lua
has "which setting" "posthoc.snapshots"
script 8 posthoc:0.7
exits "an impossible width" 2 "$ECT" run ema.lua
has "what is possible" "0.2886"
script 8 posthoc:0.070
exits "a run with snapshots" 0 "$ECT" run ema.lua
is "its evaluation" "$(q "SELECT weights FROM v_eval")" posthoc:0.07
id=$(q "SELECT run FROM v_run")
is "its snapshots" "$(ls ect.runs/"$id"/ckpt | grep -c '^ema-')" 8
exits "another width" 0 "$ECT" eval "$id" --ema posthoc:0.08
has "its row" "posthoc:0.08"
exits "a width that is stored" 0 "$ECT" eval "$id" --ema posthoc:0.05
exits "the stored one itself" 0 "$ECT" eval "$id" --ema std05
is "the same number" "$(q "SELECT count(DISTINCT value) FROM v_eval WHERE weights IN ('std05', 'posthoc:0.05')")" 1
is "other widths, other numbers" "$(q "SELECT count(DISTINCT value) FROM v_eval")" 3
exits "samples of it" 0 "$ECT" sample "$id" --ema posthoc:0.06 --out a.png
exits "a file of it" 0 "$ECT" ema "$id" --std 0.07
has "which" "$id-posthoc0.07.safetensors"
if [ -s "$id-posthoc0.07.safetensors" ]; then ok "the file"; else not_ok "the file"; fi
exits "another run starts from it" 0 "$ECT" train digits-ect --set init="$id-posthoc0.07.safetensors" --set net.width=8 --set iters=2 --set batch=4 --set eval.samples=32 --set eval.metrics=fd_pixel --set eval.nfe=1
exits "half the size" 0 "$ECT" ema "$id" --std 0.07 --half --out h.safetensors
if [ "$(wc -c < h.safetensors)" -lt "$(wc -c < "$id-posthoc0.07.safetensors")" ]; then ok "half"; else not_ok "half"; fi
exits "beyond what is stored" 2 "$ECT" ema "$id" --std 0.28
has "why" "do not span"
exits "before the first" 2 "$ECT" ema "$id" --std 0.07 --step 1
exits "no width" 2 "$ECT" ema "$id"
exits "no number" 2 "$ECT" ema "$id" --std wide
finish
