# The fuzz targets on their seeds and a few mutations of each: the readers that users' files meet first.
. tests/lib.sh
n=20; [ -n "${ECT_CHECK:-}" ] && n=4
for bin in "${BUILD:-build}"/tests/fuzz/fuzz_*; do
    case $bin in *.d) continue;; esac
    t=${bin##*/fuzz_}
    check "$t" "$bin" --mutations $n "tests/fuzz/corpus/$t" tests/golden/checkpoints tests/golden/checkpoints/bad
done
rm -rf "$TMP"
finish
