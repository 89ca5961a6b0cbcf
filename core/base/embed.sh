#!/bin/sh
# Writes C source with the given text files as constants: embed_files[] of core/base.h. Usage: embed.sh FILE...
set -eu
echo '#include "core/base.h"'
echo 'const struct embed embed_files[] = {'
for f in "$@"; do
    printf '{ "%s",\n' "$f"
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/?/\\?/g' -e 's/^/"/' -e 's/$/\\n"/' "$f"
    printf '"", %s },\n' "$(wc -c < "$f")"
done
echo '{ NULL, NULL, 0 } };'
