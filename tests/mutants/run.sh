#!/bin/sh
# Mutation test: applies each patch of tests/mutants/ in a copy of the tree, rebuilds, runs the tests that ought to notice
# ("Tests: dir/name ..." in the patch's head) and prints killed or survived. A patch that no longer applies, or a mutant that does
# not compile, is an error. Exits 1 on a survivor or an error. M=NAME runs one.
set -u
cd "$(dirname "$0")/../.."
top=$(pwd)
dir=$(mktemp -d "${TMPDIR:-/tmp}/mutants.XXXXXX")
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
fresh() { (cd "$top" && git ls-files --cached --others --exclude-standard | tar -cf - -T -) | tar -xmf - -C "$dir"; }
fresh
cd "$dir" || exit 1
make -s -j2 all test-build > log 2>&1 || { tail -20 log; echo "mutants: the unbroken tree does not build"; exit 1; }
# Only what the named tests run is linked again: most of a mutant's time would go into the other programs.
programs() {
    for t in "$@"; do
        if [ -f "tests/$t.c" ]; then echo "build/tests/$t"; else echo build/ect build/tests/golden/golden; fi
    done
}
killed=0 survived=0 broken=0
for patch in "$top"/tests/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    [ -z "${M:-}" ] || [ "$M" = "$name" ] || continue
    tests=$(sed -n 's/^Tests: //p' "$patch")
    if ! patch -p1 -s --no-backup-if-mismatch --dry-run < "$patch" > log 2>&1; then
        echo "error     $name (does not apply)"; broken=$((broken + 1)); continue
    fi
    patch -p1 -s --no-backup-if-mismatch < "$patch"
    # shellcheck disable=SC2046
    if ! make -s -j2 $(programs $tests) > log 2>&1; then
        echo "error     $name (does not compile: $(grep -m1 error log))"; broken=$((broken + 1))
    elif BUILD=build timeout 300 sh tests/run.sh $tests > log 2>&1; then
        echo "survived  $name"; survived=$((survived + 1))
    else
        echo "killed    $name"; killed=$((killed + 1))
    fi
    patch -p1 -R -s --no-backup-if-mismatch < "$patch"
done
echo "$killed killed, $survived survived, $broken broken"
[ $survived -eq 0 ] && [ $broken -eq 0 ]
