#!/bin/sh
# Measures ect against peers on this machine, in interleaved runs. Lines: name value unit goal ok|short|skip reason. Ratios are
# peer / ect of medians: above 1 means ect is faster. Usage: run.sh [GROUP]; groups: cpu, conv, ledger, metrics. PEER_PYTHON names a Python with
# PyTorch or SciPy (default: python3, then /usr/bin/python3), PICTURES a directory of pictures to import; without them those lines are skipped.
set -u
cd "$(dirname "$0")/../.."
BUILD=${BUILD:-build}
group=${1:-all}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
export OMP_WAIT_POLICY=passive
median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2) ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
line() { # line NAME VALUE UNIT GOAL up|down
    awk -v n="$1" -v v="$2" -v u="$3" -v g="$4" -v d="$5" 'BEGIN { ok = d == "up" ? v >= g : v <= g; printf "%s %.4g %s %s %s\n", n, v, u, g, ok ? "ok" : "short" }'
}
skipped() { echo "$1 - - $2 skip $3"; }

torch=
for p in ${PEER_PYTHON:-python3 /usr/bin/python3}; do
    "$p" -c 'import torch' 2> /dev/null && { torch=$p; break; }
done

cpu() {
    threads=$(nproc)
    if [ -z "$torch" ]; then
        "$BUILD/tests/bench/step" "$threads" 60 | median > "$tmp/o"
        echo "cpu.step.digits.ms $(cat "$tmp/o") ms - skip no PyTorch to compare with (set PEER_PYTHON)"
        skipped cpu.step.digits.fp32 3.5 "PyTorch is not installed"
        return
    fi
    echo "peer PyTorch $($torch -c 'import torch; print(torch.__version__)'), eager, $threads threads, batch 128, width 32"
    : > "$tmp/ours"; : > "$tmp/peer"; : > "$tmp/peercl"
    for round in 1 2 3 4 5; do
        "$BUILD/tests/bench/step" "$threads" 20 >> "$tmp/ours"
        $torch tests/bench/peer_step.py 8 1 32 1,2 1 4 128 "$threads" 20 | tail -15 >> "$tmp/peer"
        $torch tests/bench/peer_step.py 8 1 32 1,2 1 4 128 "$threads" 20 channels_last | tail -15 >> "$tmp/peercl"
    done
    ours=$(median < "$tmp/ours"); peer=$(median < "$tmp/peer"); peercl=$(median < "$tmp/peercl")
    echo "cpu.step.digits.ms $ours ms - ok"
    best=$(printf '%s\n%s\n' "$peer" "$peercl" | sort -n | head -1)
    line cpu.step.digits.fp32 "$(awk -v a="$best" -v b="$ours" 'BEGIN { print a / b }')" ratio 3.5 up
}

ledger() {
    for i in 1 2 3 4 5 6 7 8 9; do
        begin=$(date +%s%N); "$BUILD/ect" --version > /dev/null; end=$(date +%s%N); echo $(((end - begin) / 1000))
    done | median > "$tmp/v"
    line ledger.start "$(awk '{ print $1 / 1000 }' "$tmp/v")" ms 15 down
    if [ -x "$BUILD/tests/bench/ledger" ]; then
        "$BUILD/tests/bench/ledger" "$tmp/l.db" > "$tmp/i"
        line ledger.insert "$(sed -n 's/^insert //p' "$tmp/i")" points/s 500000 up
    fi
}

# convolutions of the demo's network on one core
conv() {
    "$BUILD/tests/bench/conv" > "$tmp/conv" || { skipped cpu.conv 40 "tests/bench/conv failed"; return; }
    while read -r name value; do line "cpu.conv.$name" "$value" GFLOP/s 40 up; done < "$tmp/conv"
}

# The Frechet distance of 2048 features against SciPy's sqrtm; images per second through the feature networks.
metrics() {
    scipy=
    for p in ${PEER_PYTHON:-python3 /usr/bin/python3}; do
        "$p" -c 'import scipy' 2> /dev/null && { scipy=$p; break; }
    done
    "$BUILD/tests/bench/metrics" frechet "$tmp/s" > "$tmp/f" || { skipped metrics.frechet 5 "tests/bench/metrics failed"; return; }
    ours=$(awk '{ print $2 }' "$tmp/f") value=$(awk '{ print $4 }' "$tmp/f")
    echo "metrics.frechet.s $ours s - ok"
    if [ -n "$scipy" ]; then
        echo "peer SciPy $($scipy -c 'import scipy; print(scipy.__version__)')"
        $scipy tests/bench/peer_frechet.py "$tmp/s1.npz" "$tmp/s2.npz" > "$tmp/p"
        line metrics.frechet "$(awk -v o="$ours" '{ print $1 / o }' "$tmp/p")" ratio 5 up
        line metrics.frechet.apart "$(awk -v v="$value" '{ d = $2 / v - 1; print d < 0 ? -d : d }' "$tmp/p")" relative 1e-6 down
    else
        skipped metrics.frechet 5 "SciPy is not installed (set PEER_PYTHON)"
    fi
    # 60,000 JPEGs in 20 s
    if [ -d "${PICTURES:-}" ]; then
        begin=$(date +%s%N)
        n=$(ECT_DATA="$tmp/data" "$BUILD/ect" data import "$PICTURES" --name bench --split all --replace 2>&1 | sed -n 's/^imported bench: \([0-9]*\) images.*/\1/p')
        end=$(date +%s%N)
        line metrics.import "$(awk -v n="${n:-0}" -v t=$((end - begin)) 'BEGIN { print 1e9 * n / t }')" pictures/s 3000 up
    else
        skipped metrics.import 3000 "PICTURES=DIR names a directory of pictures, one directory a class"
    fi
    echo "metrics.inception $("$BUILD/tests/bench/metrics" inception 16) images/s - ok"
    echo "metrics.dinov2 $("$BUILD/tests/bench/metrics" dinov2 4) images/s - ok"
}

case $group in
all) cpu; conv; ledger; metrics ;;
cpu | conv | ledger | metrics) $group ;;
*) echo "bench: unknown group $group (cpu, conv, ledger, metrics)"; exit 2 ;;
esac
