# The published code's vectors that travel with the repository: all parts pass, nothing is unread but what is known, every kind of
# comparison notices a value that is off by three bounds, and damaged or foreign files are failures.
. tests/lib.sh
G=$(pwd)/${BUILD:-build}/tests/golden/golden
V=tests/golden
if [ -n "${ECT_CHECK:-}" ]; then # the full-size feature networks take minutes under sanitizers; tests/core/published.c sees small ones
    mkdir -p "$TMP/v" && cp -r $V/* "$TMP/v" && rm "$TMP/v/inception_fid.safetensors" "$TMP/v/dinov2_small.safetensors"
    V=$TMP/v
fi

run() { "$G" "$@" > "$TMP/out" 2>&1; rc=$?; last=$(tail -n 1 "$TMP/out"); }

run $V
if [ $rc -eq 0 ]; then ok "all vectors pass"; else not_ok "all vectors pass" "$(grep '^fail' "$TMP/out"; echo "$last")"; fi
case $last in [1-9]*" passed, 0 failed, "*" not yet") ok "the last line counts";; *) not_ok "the last line counts" "$last";; esac
out=$(grep '^unread' "$TMP/out")
if [ -z "$out" ]; then ok "every tensor is read"; else not_ok "every tensor is read" "$out"; fi

run $V --device cpu-portable
if [ $rc -eq 0 ]; then ok "portable path passes"; else not_ok "portable path passes" "$(grep '^fail' "$TMP/out"; echo "$last")"; fi

run $V --perturb
out=$(cat "$TMP/out")
if [ $rc -eq 0 ]; then ok "every disturbed comparison fails"; else not_ok "every disturbed comparison fails" "$out"; fi
networks='weight bytes preprocessing positions resized'
[ -z "${ECT_CHECK:-}" ] || networks=
for kind in output loss gradient 'gradient of x' 'noise level' 'teacher evaluated' parameter moment 'clean gradient' schedule \
    average decay 'normalised weight' profile coefficient reconstruction sample pixel feature statistic distance count name 'kernel distance' \
    precision checkpoint $networks; do
    has "a disturbed $kind is noticed" "caught  $kind  "
done

# One bit of data at a time, the exponent's highest: the last tensor of these files is a gradient, a loss, a distance, a sample.
damage() { # FILE: in its last value
    mkdir -p "$TMP/d" && rm -f "$TMP/d/"* && cp "$V/$1" "$TMP/d/x.safetensors" && chmod u+w "$TMP/d/x.safetensors"
    size=$(wc -c < "$TMP/d/x.safetensors")
    was=$(tail -c 1 "$TMP/d/x.safetensors" | od -An -tu1 | tr -d ' ')
    printf "\\$(printf %o $((was ^ 64)))" | dd of="$TMP/d/x.safetensors" bs=1 seek=$((size - 1)) conv=notrunc 2> /dev/null
}
for f in edm_loss ect_loss_main frechet sampler_ect; do
    damage $f.safetensors
    run "$TMP/d"
    if [ $rc -eq 1 ] && grep -q '^fail' "$TMP/out"; then ok "a damaged $f is noticed"; else not_ok "a damaged $f is noticed" "$(cat "$TMP/out")"; fi
done

rm -f "$TMP/d/"*
sed 's/edm_loss/edm_lass/' "$V/edm_loss.safetensors" > "$TMP/d/edm_loss.safetensors" # same length: the header still fits
run "$TMP/d"
if [ $rc -eq 1 ] && grep -q "^fail .*unknown family 'edm_lass'" "$TMP/out"; then ok "an unknown family is a failure"
else not_ok "an unknown family is a failure" "$(cat "$TMP/out")"; fi
rm -f "$TMP/d/"*
sed 's/"edm_loss"/"edm2"    /' "$V/edm_loss.safetensors" > "$TMP/d/edm_loss.safetensors"
run "$TMP/d"
if [ $rc -eq 1 ] && grep -q "^fail" "$TMP/out"; then ok "a file of another family than it says is a failure"
else not_ok "a file of another family than it says is a failure" "$(cat "$TMP/out")"; fi
head -c 5000 "$V/edm_loss.safetensors" > "$TMP/d/edm_loss.safetensors"
run "$TMP/d"
if [ $rc -eq 1 ]; then ok "a truncated file is a failure"; else not_ok "a truncated file is a failure" "$(cat "$TMP/out")"; fi
rm -f "$TMP/d/"*
run "$TMP/d"
if [ $rc -eq 1 ]; then ok "an empty directory is a failure"; else not_ok "an empty directory is a failure"; fi
rm -rf "$TMP"
finish
