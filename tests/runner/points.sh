# Data sets of points from script to report: values, controls, scatter plots, samples as text, and what is refused.
. tests/lib.sh
cp tests/runner/points.lua "$TMP"; cd "$TMP" || exit 1
export OMP_WAIT_POLICY=passive
q() { "$ECT" sql "$1" --csv | tail -n +2 | tr -d '\r'; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }

exits "the script" 0 "$ECT" run points.lua
has "all runs" "12 of 12 runs done"
is "evaluations" "$(q "SELECT count(*) FROM v_eval WHERE value > 0 AND samples = 100")" 42
is "the velocity's evaluations count their calls" "$(q "SELECT count(*) FROM v_eval WHERE sampler = 'flow-euler' AND nfe IN (2, 4)")" 24
is "controls" "$(q "SELECT group_concat(name || ' ' || metric, ' | ') FROM (SELECT DISTINCT name, metric FROM v_control ORDER BY name, metric)")" \
    "gaussian energy | gaussian sw2 | real_fresh energy | real_fresh sw2"
is "nothing is quantised" "$(q "SELECT count(*) FROM v_evaluator WHERE canon LIKE '%uint8=none%' AND canon LIKE '%reference.draw=fresh%'")" \
    "$(q "SELECT count(*) FROM v_evaluator")"
is "scatter plots" "$(q "SELECT count(*) FROM v_artifact WHERE role IN ('grid:data', 'grid:heun3', 'grid:ect@1', 'grid:ect@2')")" 6
is "plots of flows" "$(q "SELECT count(*) FROM v_artifact a JOIN v_run r ON r.run = a.run WHERE r.sweep = 'flow'")" 6
exits "the same again" 0 "$ECT" run points.lua
has "nothing to do" "nothing to do: 12 runs done"
exits "report of the flow" 0 "$ECT" report --sweep flow
has "its claim" "p = 1 helps"
has "equal cost" "equal"
has "the floor" "real, drawn afresh"
exits "report of the tuning, as a page" 0 "$ECT" report --sweep tune --out tune.html
if grep -q "two steps are better than one" tune.html && grep -q "data:image/png" tune.html; then ok "claims and plots in it"; else not_ok "claims and plots in it"; fi
id=$(q "SELECT run FROM v_run WHERE sweep = 'flow' AND cell = 'p=1' AND replicate = 1")
exits "points as text" 0 "$ECT" sample "$id" --sampler flow-euler --nfe 4 --seeds 0-9 --out a.csv
exits "one of them" 0 "$ECT" sample "$id" --sampler flow-euler --nfe 4 --seeds 7 --out b.csv
is "point i depends on its seed alone" "$(sed -n 8p a.csv)" "$(cat b.csv)"
is "ten points" "$(grep -c '^-\{0,1\}[0-9.e-]*,-\{0,1\}[0-9.e-]*$' a.csv)" 10
exits "points as a plot" 0 "$ECT" sample "$id" --sampler flow-euler --nfe 4 --out a.png
exits "points are no images" 2 "$ECT" sample "$id" --sampler flow-euler --nfe 4 --out a.npz
exits "a velocity is no denoiser" 2 "$ECT" eval "$id" --sampler heun --nfe 3 --metrics energy
has "which sampler fits" "flow-euler"
exits "metrics of images" 2 "$ECT" eval "$id" --sampler flow-euler --nfe 2 --metrics fd_pixel
has "which metrics fit" "energy, sw2"
exits "another evaluation" 0 "$ECT" eval "$id" --sampler flow-euler --nfe 8 --samples 50 --metrics sw2
is "its row" "$(q "SELECT count(*) FROM v_eval WHERE nfe = 8 AND samples = 50")" 1
cat > images.lua <<'END'
local ect = require "ect"
ect.run "images" { ect.recipe "digits-edm" { net = { "mlp", width = 16 }, iters = 2 } }
END
exits "an MLP is not for images" 2 "$ECT" run images.lua
has "and says so" "net = mlp is for points"
finish
