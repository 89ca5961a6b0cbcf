# Starting weights from files, and weights out again: a file counts by its contents; what fits is taken, what does not is named.
. tests/lib.sh
cp tests/runner/tiny.lua "$TMP/"
cat > "$TMP/pre.lua" <<'L'
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
ect.run "pre" { ect.recipe "digits-edm" { net = net, batch = 16, iters = 8, ckpt = { every = 8 } }, replicates = 1,
    eval = { sampler = "ect", nfe = { 1 }, ema = "std05", samples = 64 } }
L
cat > "$TMP/tune.lua" <<'L'
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
ect.sweep "tune" { init = ect.arg("file", "w.safetensors"), replicates = 1,
    base = ect.recipe "digits-ect" { net = net, batch = 16, iters = 4, ckpt = { every = 8 } },
    eval = { sampler = "ect", nfe = { 1 }, ema = "raw", samples = 64 } }
L
top=$(pwd)
cd "$TMP" || exit 1
run_of() { "$ECT" ls --ledger ect.db | awk -v s="$1" '$2 == s { print $1; exit }'; }

exits "a missing file is missing data" 6 "$ECT" run tune.lua -q
has "the message has file and line" "tune.lua:3: init = w.safetensors: there is no such file"
check "pretraining" "$ECT" run pre.lua -q
pre=$(run_of pre)
check "export of an EMA" "$ECT" export "$pre" w.safetensors --weights std05
out=$("$ECT" export "$pre" w.pt 2>&1); has "other endings are refused" "weights are written as .safetensors"
exits "unknown weights are named" 2 "$ECT" export "$pre" x.safetensors --weights std99
has "with those there are" "it has raw,"
out=$(head -c 3000 w.safetensors | tr -d '\0'); has "the configuration travels in the file" 'model_channels\": 8'
has "and the settings" 'net.width=8'

check "tuning from the file" "$ECT" run tune.lua -q
tune=$(run_of tune)
out=$("$ECT" show "$tune"); has "the hash is the setting" "init          file:$(sha256sum w.safetensors | cut -c1-64)"
has "what was taken is recorded" "init.loaded       146"
cp w.safetensors same.safetensors
out=$("$ECT" run tune.lua --set file=same.safetensors -q); has "the same contents are the same run" "nothing to do"
out=$("$ECT" run tune.lua --set init=./same.safetensors -q); has "also by --set init" "nothing to do"
check "export of the raw weights" "$ECT" export "$pre" other.safetensors --weights raw
out=$("$ECT" run tune.lua --set file=other.safetensors -n); has "other contents are another run" "1 missing"

exits "a published network of another shape fails" 2 "$ECT" run tune.lua -q --set file="$top/tests/golden/checkpoints/ect-network-snapshot.pkl"
has "the tensor and both shapes are named" "tensor ema/model.map_layer0.weight has shape [16, 4], the network's model.map_layer0.weight has [32, 8]"
exits "a hostile file fails" 2 "$ECT" run tune.lua -q --set file="$top/tests/golden/checkpoints/bad/evil-in-zip.pth"
has "and is told" "refused: the file names posix.system"
exits "weights that are not in it" 2 "$ECT" run tune.lua -q --set init.weights=ema
has "are answered with those that are" "no weights 'ema': it has raw"
exits "init.weights needs a file" 2 "$ECT" run pre.lua -q --set init.weights=ema
has "and says so" "it chooses among the weights of a file"

exits "a run that is no parent of the script is no starting weights" 2 "$ECT" train digits-ect --set init="run:$pre@raw" --set iters=5 --set batch=4 --set eval.samples=16
has "and the way there is named" "ect export $pre w.safetensors"
exits "nor is one that does not exist" 2 "$ECT" run tune.lua --set init=run:garbage@raw
exits "also in a script" 2 "$ECT" run tune.lua --set file=run:garbage
has "with its line" "tune.lua:3"
out=$("$ECT" sql --csv "select 'runs:' || count(*) from v_run"); has "none of the refused was recorded" "runs:2"

# Weights that fit in part: those of a network without attention, which this one has.
sed 's/"pre"/"bare"/; s/attn = { 4 }/attn = {}/' pre.lua > bare.lua
check "pretraining without attention" "$ECT" run bare.lua -q
check "export of it" "$ECT" export "$(run_of bare)" bare.safetensors --weights raw
exits "what is missing is drawn" 0 "$ECT" run tune.lua --set file=bare.safetensors
has "and the terminal says so" "of the network missing in the file, drawn at random: "
has "with the first names only" ", ..."
case $out in *dropped*) not_ok "nothing was dropped" "$out";; *) ok "nothing was dropped";; esac
exits "the other way" 0 "$ECT" run bare.lua --set init=w.safetensors
has "is said too" "of the file dropped, the network has no place for them: "

# The same start by file and by parent gives the same training.
a=$("$ECT" sql --csv "select value from v_metric where run = '$tune' and key = 'loss' order by step desc limit 1" 2>&1 | tail -1)
cat > by_parent.lua <<'L'
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
local pre = ect.run "pre" { ect.recipe "digits-edm" { net = net, batch = 16, iters = 8, ckpt = { every = 8 } }, replicates = 1,
    eval = { sampler = "ect", nfe = { 1 }, ema = "std05", samples = 64 } }
ect.sweep "parent" { init = pre:weights { ema = "std05" }, replicates = 1,
    base = ect.recipe "digits-ect" { net = net, batch = 16, iters = 4, ckpt = { every = 8 } },
    eval = { sampler = "ect", nfe = { 1 }, ema = "raw", samples = 64 } }
L
check "tuning from the parent" "$ECT" run by_parent.lua -q
b=$("$ECT" sql --csv "select value from v_metric where run = '$(run_of parent)' and key = 'loss' order by step desc limit 1" 2>&1 | tail -1)
if [ -n "$a" ] && [ "$a" = "$b" ]; then ok "a file gives the same start as the run it came from"; else not_ok "a file gives the same start as the run it came from" "$a / $b"; fi
cd "$top" || exit 1
rm -rf "$TMP"
finish
