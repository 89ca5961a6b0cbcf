#!/bin/sh
# The Debian packages that building, running, testing and reporting need; installs what is missing. With "lint": also those of
# `make lint` and of the full CI run.
set -u
need="gcc make pkg-config libc6-dev libdnnl-dev libopenblas-openmp-dev liblapacke-dev liblua5.4-dev libsqlite3-dev \
libcurl4-openssl-dev libpng-dev libjpeg62-turbo-dev zlib1g-dev libzip-dev libjansson-dev libcmocka-dev gnuplot-nox"
[ "${1:-}" = lint ] && need="$need git clang-format cppcheck valgrind python3 openssl"
command -v dpkg-query > /dev/null || { echo "deps: not a Debian system; install the equivalents of: $need"; exit 0; }
missing=
for p in $need; do
    dpkg-query -W -f='${Status}' "$p" 2> /dev/null | grep -q 'ok installed' || missing="$missing $p"
done
[ -z "$missing" ] && exit 0
echo "deps: missing$missing"
if [ "$(id -u)" = 0 ]; then sudo=
elif command -v sudo > /dev/null && sudo -n true 2> /dev/null; then sudo=sudo
else echo "deps: run this, then try again:"; echo "    sudo apt-get install -y$missing"; exit 1; fi
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing ||
{ echo "deps: apt-get failed; run this by hand:"; echo "    sudo apt-get install -y$missing"; exit 1; }
