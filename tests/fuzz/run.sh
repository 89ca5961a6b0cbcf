#!/bin/sh
# make fuzz T=pickle SECONDS=60: fuzzes one target, or all in turn. With clang's libFuzzer under sanitizers; without, replays and mutates the
# seeds. What it finds is left in build-fuzz/ as T-crash-...; what is new and small may be added to tests/fuzz/corpus/T.
set -u
cd "$(dirname "$0")/../.."
seconds=${SECONDS_EACH:-60} found=0
out=build-fuzz
mkdir -p $out
seeds="tests/golden/checkpoints tests/golden/checkpoints/bad"
targets=${*:-$(ls tests/fuzz/fuzz_*.c | sed 's|.*/fuzz_||; s|\.c$||')}
pc="libzip jansson libpng zlib libjpeg"
flags="-std=c11 -D_GNU_SOURCE -DECT_ONEDNN=0 -I. -g -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
-fno-sanitize-recover=undefined -Wno-unknown-pragmas $(pkg-config --cflags $pc 2> /dev/null)"
# The readers once, in a library: a target takes from it what it needs.
library() {
    rm -f $out/readers.a
    mkdir -p $out/obj
    echo '#include "core/base.h"
const struct embed embed_files[] = {{0}};' > $out/obj/embed.c
    for c in core/base/*.c core/io/*.c core/rng.c $out/obj/embed.c; do
        # shellcheck disable=SC2086
        clang $flags -c -o "$out/obj/$(echo "$c" | tr / _).o" "$c" || return 1
    done
    ar rcs $out/readers.a $out/obj/*.o
}
# shellcheck disable=SC2046,SC2086
build() {
    clang $flags -fsanitize=fuzzer -o "$2" "$1" $out/readers.a $(pkg-config --libs $pc) -lm
}
have=1
library > $out/log 2>&1 || have=0
for t in $targets; do
    [ -f "tests/fuzz/fuzz_$t.c" ] || { echo "fuzz: no target $t"; exit 2; }
    mkdir -p "$out/corpus-$t" "tests/fuzz/corpus/$t"
    if [ $have = 1 ] && build "tests/fuzz/fuzz_$t.c" "$out/fuzz_$t" 2> "$out/log"; then
        # shellcheck disable=SC2086
        "$out/fuzz_$t" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -artifact_prefix="$out/$t-" -print_final_stats=1 \
            "$out/corpus-$t" "tests/fuzz/corpus/$t" $seeds > "$out/$t.log" 2>&1 || found=1
        grep -E 'ERROR|SUMMARY|stat::number_of_executed_units|Test unit written' "$out/$t.log" | sed "s/^/$t: /"
    else
        echo "$t: no libFuzzer here (clang -fsanitize=fuzzer; see $out/log): replaying with mutations"
        make -s "build/tests/fuzz/fuzz_$t" || exit 1
        # shellcheck disable=SC2086
        "build/tests/fuzz/fuzz_$t" --mutations 200 "tests/fuzz/corpus/$t" $seeds || found=1
    fi
done
[ $found -eq 0 ] && echo "no finding"
exit $found
