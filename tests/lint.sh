#!/bin/sh
# Lint: who may include whom, where vendor headers may appear, formatting, a static analyser, and a few promises that grep can see.
# Prints what is wrong with file and line; exits 1 on any finding. Tools that are not installed are named and count as a failure
# in CI (CI=true), as a notice elsewhere.
set -u
cd "$(dirname "$0")/.."
bad=0
complain() { bad=1; printf '%s\n' "$1"; }
files() { git ls-files --cached --others --exclude-standard -- "$@"; }

# rule DIR ALLOWED-REGEX: every #include "..." of DIR must match
rule() {
    dir=$1 allowed=$2
    found=$(files "$dir/*.c" "$dir/*.h" "$dir/*.def" | xargs -r grep -nE '^ *# *include *"' | grep -vE "include *\"($allowed)")
    [ -z "$found" ] || complain "$dir/ may not include:
$found"
}
rule kernels 'kernels/|core/base\.h"'
rule core 'core/|kernels/(kernels|linalg)\.h"|kernels/(philox|xd)\.h"'
rule db 'db/|core/base\.h"'
rule lua 'lua/|core/(base|spec|design)\.h"|core/spec\.def"'
rule reports 'reports/|db/(query|stats|ledger)\.h"|lua/[a-z_]*\.h"|core/base\.h"'
rule runner 'runner/|core/|db/|lua/script\.h"|reports/report\.h"|kernels/kernels\.h"'

# base is a leaf
found=$(files 'core/base/*.c' core/base.h | xargs -r grep -nE '^ *# *include *"' | grep -vE 'core/base')
[ -z "$found" ] || complain "core/base is a leaf, but:
$found"

# vendor PATTERN PLACES: vendor headers live in one place each
vendor() {
    pattern=$1 places=$2
    found=$(files '*.c' '*.h' | grep -v '^tests/' | xargs -r grep -nE "^ *# *include *[<\"]($pattern)" | grep -vE "^($places)")
    [ -z "$found" ] || complain "vendor headers outside $places:
$found"
}
vendor 'sqlite3' 'db/'
vendor 'lua\.h|lauxlib|lualib' 'lua/|reports/[a-z_]*lua[a-z_]*\.c'
vendor 'curl' 'runner/http\.c'
vendor 'oneapi|dnnl|cblas|lapacke' 'kernels/cpu/'
vendor 'cuda|cudnn|cublas' 'kernels/cuda/'
vendor 'png|jpeglib|zlib|zip' 'core/io/'
vendor 'jansson' 'core/io/|db/|reports/|runner/'

found=$(files '*.c' | grep -vE '^(runner/main\.c|tests/)' | xargs -r grep -nE '(^|[^_a-z.>])exit *\(')
[ -z "$found" ] || complain "exit() outside runner/main.c:
$found"
found=$(files '*.c' '*.h' | xargs -r grep -nE '^ *typedef ' | grep -v 'typedef int err_t')
[ -z "$found" ] || complain "typedef (err_t is the one):
$found"
found=$(files '*.c' '*.h' '*.lua' '*.sh' '*.md' '*.sql' Makefile | grep -v '^tests/lint.sh$' | xargs -r grep -nE '/work/|ffast-math' | grep -v 'never -ffast-math')
[ -z "$found" ] || complain "paths of one machine, or -ffast-math:
$found"
found=$(files '*.c' '*.h' '*.lua' '*.sh' '*.sql' Makefile | xargs -r grep -nE " +\$|$(printf '\t')" | grep -vE '^Makefile:|^tests/golden/')
[ -z "$found" ] || complain "trailing blanks or tabs:
$(printf '%s\n' "$found" | head -20)"

need() {
    command -v "$1" > /dev/null && return 0
    if [ "${CI:-}" = true ]; then complain "lint: $1 is not installed"; else echo "lint: $1 is not installed: skipped (apt-get install $1)"; fi
    return 1
}
if need clang-format; then
    for f in $(files '*.c' '*.h' | grep -vE '^(core/(spec|ops)\.def|kernels/ops\.def)$'); do
        clang-format "$f" | cmp -s - "$f" || complain "$f: not formatted (clang-format -i $f)"
    done
fi
if need cppcheck; then
    cppcheck -q -j2 --std=c11 --language=c --error-exitcode=1 --inline-suppr --enable=warning,portability \
        --suppress=missingIncludeSystem --suppress=nullPointerRedundantCheck --suppress=unknownMacro -I. -D_GNU_SOURCE -DECT_ONEDNN=1 \
        --template='{file}:{line}: {id}: {message}' core kernels lua db reports runner || complain "cppcheck found the above"
fi
[ $bad -eq 0 ] && echo "lint: clean"
exit $bad
