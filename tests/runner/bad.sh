# Bad input and bad places: each is named, with what to do, and nothing already recorded is lost.
. tests/lib.sh
DATA=$(pwd)/experiments/data
cp tests/runner/tiny.lua "$TMP"; cd "$TMP" || exit 1
export OMP_WAIT_POLICY=passive
q() { "$ECT" sql "$1" --csv | tail -n +2 | tr -d '\r'; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }
script() { # NAME SETTINGS: a one-cell script
    cat > "$1" <<END
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1 }, blocks = 1, attn = {} }
local s = ect.sweep "bad" {
    base = ect.recipe "digits-ect" { net = net, batch = 8, iters = 12, $2 },
    eval = { samples = 64, ema = "std05", nfe = { 1 } },
}
$3
END
}

script key.lua "mappng = 1"
exits "misspelt key" 2 "$ECT" run key.lua
has "its file and line" "key.lua:4"
has "the nearest name" "mapping"
script type.lua 'batch = "many"'
exits "wrong type" 2 "$ECT" run type.lua
has "its file" "type.lua"
script ema.lua "" ""
sed -i 's/ema = "std05"/ema = "std06"/' ema.lua
exits "unknown EMA in an evaluation" 2 "$ECT" run ema.lua
has "the nearest EMA" "std05"
printf 'local ect = require "ect"\nect.run "x" {' > syntax.lua
exits "syntax error" 2 "$ECT" run syntax.lua
has "its line" "syntax.lua:2"
printf 'local ect = require "ect"\n' > none.lua
exits "a script that asks for nothing" 2 "$ECT" run none.lua
exits "unknown --set" 2 "$ECT" run tiny.lua --set btach=8
has "nearest setting" "batch"
script fid.lua "" ""
sed -i 's/nfe = { 1 }/nfe = { 1 }, metrics = { "fid" }/' fid.lua
exits "fid without its extractor" 6 "$ECT" run fid.lua
has "how to get it" "ect weights get inception"
exits "lpips without its network" 6 "$ECT" run tiny.lua --set metric=lpips
has "how to get it too" "ect weights get lpips-vgg"
script static.lua "" ""
static() { # SETTING WORDS: refused before anything is recorded, in the same way by -n
    exits "$1 is refused by planning" 2 "$ECT" run static.lua --set "$1"
    has "with what is wrong" "$2"
    exits "and by a dry run" 2 "$ECT" run static.lua -n --set "$1"
}
static dropout=1.5 "dropout(s) = 1.5 must be in [0, 1)"
static lr=-1 "lr(s) = -1 must be"
static augment=0.1 "needs net.augment = 9"
static target=ict "set pair and curriculum"
static loss.teacher=frozen "init = weights of a trained network"
static target=flow "must be in (0, 1)"
static net.mult=1,2,2,2,2 "cannot be halved 4 times"
static loss.scale=-1 "neither a positive number"
exits "a parent with another network" 2 "$ECT" run tiny.lua -n --set tiny:net.width=12
has "the first tensor that does not fit is named" "has another shape in the network of the run they come from"
exits "a parent with less of a network" 2 "$ECT" run tiny.lua --set pre:net.blocks=1 --set tiny:net.blocks=2
has "what it lacks is named" "the network of the run they come from has no "
exits "a parent that has more will do" 0 "$ECT" run tiny.lua -n
if [ -e ect.db ]; then not_ok "no ledger after refused scripts"; else ok "no ledger after refused scripts"; fi

# outcomes: one cell diverges, one has an error in its function; the others are done
script nan.lua "" 's:ablate { lr = { ok = 1e-4, huge = 1e30 }, mapping = { sigmoid = ect.mapping.sigmoid { q = 2, k = 8, b = 1 }, late = function(t, s)
    if s.step > 4 then error("boom") end
    return t / 2
end } }'
exits "a diverging cell and a failing one" 3 "$ECT" run nan.lua
has "diverged is said" "diverged"
has "the error is said, with its line" "nan.lua:8"
is "the rest is done" "$(q "SELECT count(*) FROM v_run WHERE status = 'done'")" 2
is "one diverged" "$(q "SELECT cell FROM v_run WHERE status = 'diverged'")" "lr=huge"
is "one failed" "$(q "SELECT cell FROM v_run WHERE status = 'failed'")" "mapping=late"
run=$(q "SELECT run FROM v_run WHERE status = 'failed'")
out=$(cat "ect.runs/$run/log.txt")
has "the log has a traceback" "traceback"
exits "a report of it" 0 "$ECT" report
has "shows how many diverged" "1 of 4 diverged"
has "and that a cell has none" "0/1 diverged 1"
exits "again: only the failed one is tried" 3 "$ECT" run nan.lua --json
has "one is started" '"started": 1'

# children of a diverged parent are blocked
cat > chain.lua <<'END'
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1 }, blocks = 1, attn = {} }
local pre = ect.run "bang" { ect.recipe "digits-edm" { net = net, batch = 8, iters = 12, lr = 1e30 }, eval = { sampler = "ect", nfe = { 1 }, samples = 64, ema = "std05" } }
ect.sweep "child" { init = pre:weights { ema = "std05" }, base = ect.recipe "digits-ect" { net = net, batch = 8, iters = 12 }, eval = { samples = 64, ema = "std05" } }
END
exits "a diverged parent" 3 "$ECT" run chain.lua
has "its child is blocked" "blocked"
exits "again: nothing can be done" 3 "$ECT" run chain.lua --json
has "none is started" '"started": 0'

# places
echo "this is a text" > text.db
exits "a ledger that is not one" 1 "$ECT" ls --ledger text.db
has "is named" "text.db"
is "and left alone" "$(cat text.db)" "this is a text"
exits "the same for run" 1 "$ECT" run tiny.lua --ledger text.db
cp ect.db newer.db
printf '\0\0\003\350' | dd of=newer.db bs=1 seek=60 conv=notrunc 2> /dev/null # SQLite's user_version: 1000
exits "a ledger of a newer version" 1 "$ECT" ls --ledger newer.db
has "is said" "newer"
exits "a place that cannot be written" 1 "$ECT" run tiny.lua --ledger /proc/nowhere/x.db
has "is named" "/proc/nowhere"

# a full disk (a file-size limit): an error with a name; afterwards the same command finishes
script small.lua "" ""
(ulimit -f 200; exec "$ECT" run small.lua --ledger full.db) > full.out 2>&1
rc=$?
if [ $rc -ne 0 ] && [ $rc -lt 128 ]; then ok "a full disk ends in an error, not in a signal"; else not_ok "a full disk ends in an error, not in a signal" "exit $rc: $(cat full.out)"; fi
exits "with space again" 0 "$ECT" run small.lua --ledger full.db

# data
mkdir -p none lone cut/data
cp "$ECT" lone/ect # away from the source tree, whose file it would find
exits "missing data file" 6 env ECT_DATA="$TMP/none" lone/ect run small.lua --ledger d.db
has "it is named" "digits.csv.gz"
head -c 20000 "$DATA/digits.csv.gz" > cut/data/digits.csv.gz
exits "truncated data file" 1 env ECT_DATA="$TMP/cut" "$ECT" run small.lua --ledger d.db
has "it is named" "cut/data/digits.csv.gz"
finish
