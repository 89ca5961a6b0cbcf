# Round trips with the real tools, where they are: PyTorch, NumPy and Pillow read what ect writes, ect reads what they write.
. tests/lib.sh
py=
for p in python3 /usr/bin/python3; do
    [ -z "$py" ] && "$p" -c 'import torch, numpy' 2> /dev/null && py=$p
done
if [ -z "$py" ]; then
    skip "round trips" "no python3 with torch and numpy here"
    rm -rf "$TMP"
    finish
    exit
fi
cat > "$TMP/pre.lua" <<'L'
local ect = require "ect"
local net = { "songunet", width = 8, mult = { 1, 2 }, blocks = 1, attn = { 4 } }
ect.run "pre" { ect.recipe "digits-edm" { net = net, batch = 16, iters = 4, ckpt = { every = 8 } }, replicates = 1,
    eval = { sampler = "ect", nfe = { 1 }, ema = "raw", samples = 64 } }
L
script=$(pwd)/tests/core/roundtrip.py
cd "$TMP" || exit 1
check "a run" "$ECT" run pre.lua -q
run=$("$ECT" ls | awk '$2 == "pre" { print $1 }')
unset LD_PRELOAD
"$py" "$script" "$TMP" "$ECT" "$run" ect.db > lines 2> err; rc=$?
while IFS= read -r l; do
    case $l in
    "ok - "*) ok "${l#ok - }";;
    "not ok - "*) not_ok "${l#not ok - }";;
    *) echo "$l";;
    esac
done < lines
if [ $rc -eq 0 ]; then ok "the script ran to its end"; else not_ok "the script ran to its end" "$(tail -5 err)"; fi
cd / || exit 1
rm -rf "$TMP"
finish
