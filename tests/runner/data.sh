# Data sets from pictures to a trained model: import, list, check, train with classes, and what is refused. A changed data set under a
# run's name is noticed.
. tests/lib.sh
cd "$TMP" || exit 1
export OMP_WAIT_POLICY=passive ECT_DATA="$TMP/data"
q() { "$ECT" sql "$1" --csv | tail -n +2 | tr -d '\r'; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }
# Two pictures of 8 x 8 pixels in colour: from left to right, from top to bottom.
across() { echo iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAJUlEQVR42mNg4BKR0zCycQuISsmraOqZtmDVln0nLt15xjC0JABMSFZBk1/uhAAAAABJRU5ErkJggg== | base64 -d; }
down() { echo iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAN0lEQVR42mP4//U1VsTw8PpZrIjh8M71WBHD0tkTsSKG9tpirIghMz4UK2LwdjTHihh0lSWxIgCV9GkBaNXGDwAAAABJRU5ErkJggg== | base64 -d; }
mkdir -p pictures/across pictures/down
for i in 1 2 3 4; do across > pictures/across/$i.png; down > pictures/down/$i.png; done

exits "import" 0 "$ECT" data import pictures --name stripes
has "what came of it" "imported stripes: 8 images of 8x8x3, 2 classes"
exits "list" 0 "$ECT" data ls
has "it is there" "stripes"
has "beside those that ship" "digits"
exits "show" 0 "$ECT" data show stripes
has "its classes" "across, down"
exits "show as JSON" 0 "$ECT" data show stripes --json
has "with the hash" '"sha"'
exits "check" 0 "$ECT" data check
exits "smaller" 0 "$ECT" data import pictures --size 4 --box --name small
has "means of pixels" "8 images of 4x4x3"
exits "no such verb" 2 "$ECT" data imprt pictures
has "the nearest" "did you mean import?"
exits "no such path" 6 "$ECT" data import nowhere
exits "a built-in name" 2 "$ECT" data import pictures --name digits

cat > train.lua <<'END'
local ect = require "ect"
ect.run "cond" {
    ect.recipe "digits-edm" { data = "stripes", net = { "songunet", width = 8, mult = { 1 }, blocks = 1, attn = {} }, ["net.cond"] = true,
        batch = 8, iters = 4, ema = ect.ema.const { beta = 0.9 } },
    replicates = 1, eval = { sampler = "ect", nfe = { 1 }, ema = "raw", samples = 16, metrics = { "fd_pixel" } },
}
END
exits "training with classes" 0 "$ECT" run -q train.lua
is "its data" "$(q "SELECT value FROM v_provenance WHERE key = 'data.sha'")" "$("$ECT" data show stripes --json | sed -n 's/.*"sha": "\([0-9a-f]*\)".*/\1/p')"
is "an evaluation" "$(q "SELECT count(*) FROM v_eval WHERE metric = 'fd_pixel'")" 1
id=$(q "SELECT run FROM v_run")
exits "fd_digits is of digits" 2 "$ECT" eval "$id" --metrics fd_digits --samples 16
has "why" "8x8x1"

across > pictures/down/1.png
exits "other contents under that name" 2 "$ECT" data import pictures --name stripes
has "what to do" "--replace"
exits "put in its place" 0 "$ECT" data import pictures --name stripes --replace
exits "a run of the old contents" 1 "$ECT" eval "$id" --metrics fd_random --samples 16
has "says so" "was trained on other contents"
head -c 60 pictures/down/2.png > cut && mv cut pictures/down/2.png
exits "a picture cut short" 1 "$ECT" data import pictures --name cut
has "is named" "pictures/down/2.png"
is "nothing is left of it" "$(ls data | grep -c cut)" 0
exits "remove" 0 "$ECT" data rm stripes
exits "gone" 2 "$ECT" data rm stripes
exits "not to be trained on" 6 "$ECT" run -q train.lua --set iters=5
has "how to get it" "ect data import"
finish
