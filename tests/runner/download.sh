# Downloads from an HTTPS server on the loopback device, with a certificate authority of the test's own: whole, broken off, changed, redirected,
# refused. The network itself is never asked for anything.
. tests/lib.sh
unset http_proxy https_proxy HTTPS_PROXY ALL_PROXY all_proxy LD_PRELOAD
export no_proxy='*' OMP_NUM_THREADS=1
py=
for p in python3 /usr/bin/python3; do
    [ -z "$py" ] && "$p" -c 'import ssl, http.server' 2> /dev/null && py=$p
done
if [ -z "$py" ] || ! command -v openssl > /dev/null; then
    skip "downloads" "no python3 or no openssl here"
    rm -rf "$TMP"
    finish
    exit
fi
server=$(pwd)/tests/runner/server.py
cd "$TMP" || exit 1
mkdir serve
W=$ECT_WEIGHTS

# An authority, and a certificate of its making for localhost. Another authority that has nothing to do with it.
{
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-ca
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout other.key -out other.pem -days 2 -subj /CN=other-ca
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem -out req.pem -subj /CN=localhost
    echo subjectAltName=DNS:localhost > ext
    openssl x509 -req -in req.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem
} 2> /dev/null > /dev/null
export ECT_CA_FILE="$TMP/ca.pem"

# Files that pass for networks: safetensors of 1 MB with one tensor.
"$py" - serve << 'P'
import json, os, struct, sys
for name, key in ("net", "enc.a"), ("net.new", "enc.b"), ("other", "body.a"):
    n = 260000
    head = json.dumps({key: {"dtype": "F32", "shape": [n], "data_offsets": [0, 4 * n]}}).encode()
    head += b" " * (-len(head) % 8)
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head + struct.pack(f"<{n}f", *((i * 7919 % 1009) / 7 for i in range(n))))
def save(name, tensors):
    head, at = {}, 0
    for k, shape in tensors.items():
        n = 4
        for d in shape:
            n *= d
        head[k] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(sys.argv[1], name), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + bytes(at))
convs = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
vgg = {f"features.{n}.{part}": [2, 3 if n == 0 else 2, 3, 3] if part == "weight" else [2] for n in convs for part in ("weight", "bias")}
save("vgg", vgg)
save("vgg.cut", {k: v for k, v in vgg.items() if k != "features.28.bias"})
save("vgg.turned", {k: [2, 3, 3, 3] if k == "features.2.weight" else v for k, v in vgg.items()})
save("lins", {f"lin{i}.model.1.weight": [1, n, 1, 1] for i, n in enumerate((64, 128, 256, 512, 512))})
save("lins.cut", {f"lin{i}.model.1.weight": [1, n, 1, 1] for i, n in enumerate((64, 128, 256, 512))})
save("lins.narrow", {f"lin{i}.model.1.weight": [1, 64, 1, 1] for i in range(5)})
P
"$py" "$server" cert.pem key.pem serve & pid=$!
trap 'kill $pid 2> /dev/null; rm -rf "$TMP"' EXIT
i=0
while [ ! -e serve/ports ] && [ $i -lt 600 ]; do i=$((i + 1)); sleep 0.05; done
read -r port plain < serve/ports
at=https://localhost:$port
sum=$(sha256sum serve/net | cut -d' ' -f1)
newsum=$(sha256sum serve/net.new | cut -d' ' -f1)
what=edm2-img64-s
file=$W/$what.pkl
get() { way=$1; shift; timeout 60 "$ECT" weights get $what --url "$at/$way" --tries 3 --timeout 5 "$@"; }
fresh() { rm -rf "$W"; : > serve/log; }
requests() { grep -c "$1" serve/log; }
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }
nothing() { if [ -e "$file" ]; then not_ok "$1: nothing is installed"; else ok "$1: nothing is installed"; fi; }

# whole
exits "whole file" 0 get ok/net --sha256 "$sum"
check "its bytes" cmp serve/net "$file"
is "nothing else is left" "$(ls "$W" | tr '\n' ' ')" "SHA256SUMS $what.pkl "
check "the record is sha256sum's" sh -c "cd '$W' && sha256sum -c SHA256SUMS"
: > serve/log
exits "again" 0 get ok/net --sha256 "$sum"
has "says that it is there" "is there"
is "without asking the server" "$(requests .)" 0

# trust on first use
fresh
exits "no hash known" 0 get ok/net
has "the hash is recorded, and it is said" "recorded now"
rm "$file"
exits "another file later" 1 get ok/net.new
has "is refused by the record" "refused: its SHA-256 is"
nothing "another file later"
exits "the same file later" 0 get ok/net
exits "check" 0 "$ECT" weights check
has "check: as recorded" "as recorded at first"
printf x | dd of="$file" bs=1 seek=5000 conv=notrunc 2> /dev/null
exits "check of a damaged file" 1 "$ECT" weights check $what
has "names it" "BAD  $what"
exits "getting a damaged one again" 0 get ok/net
has "says why" "it is fetched again"
check "mended" cmp serve/net "$file"

# broken off
fresh
exits "cut, in one call" 0 get cut/net --sha256 "$sum"
check "cut: its bytes" cmp serve/net "$file"
is "cut: the rest was asked for" "$(grep -c 'cut/net bytes=[1-9]' serve/log)" 1
fresh
exits "cut after every 200 kB" 0 "$ECT" weights get $what --url "$at/cuts/net" --tries 1 -q
check "cuts: its bytes" cmp serve/net "$file"
fresh
"$ECT" weights get $what --url "$at/slow/net" > slow.out 2>&1 & job=$!
i=0
while [ "$(stat -c %s "$file.part" 2> /dev/null || echo 0)" -lt 100000 ] && [ $i -lt 600 ]; do i=$((i + 1)); sleep 0.05; done
kill -INT $job
wait $job
is "interrupted: its exit code" $? 75
out=$(cat slow.out)
has "interrupted: says what is kept" "goes on from there"
had=$(stat -c %s "$file.part")
nothing "interrupted"
exits "going on" 0 get slow/net
check "going on: its bytes" cmp serve/net "$file"
is "going on: from where it was" "$(grep -c "slow/net bytes=$had-" serve/log)" 1
fresh
mkdir -p "$W"
head -c 300000 serve/net > "$file.part"
exits "a part of unknown origin, no hash" 0 get ok/net
check "a part of unknown origin: its bytes" cmp serve/net "$file"
is "a part of unknown origin: begun again" "$(grep -c 'ok/net -' serve/log)" 1
fresh
mkdir -p "$W"
head -c 300000 serve/net.new > "$file.part"
exits "a part of another file, hash known" 0 get ok/net --sha256 "$sum"
check "a part of another file: its bytes" cmp serve/net "$file"
fresh
mkdir -p "$W"
cp serve/net "$file.part"
exits "all but renamed" 0 get ok/net --sha256 "$sum"
check "all but renamed: its bytes" cmp serve/net "$file"

# servers that are not the same twice
fresh
exits "changed between the pieces" 0 get changed/net
check "changed: the new file, whole" cmp serve/net.new "$file"
fresh
exits "a server without ranges" 0 get norange/net --sha256 "$sum"
check "without ranges: its bytes" cmp serve/net "$file"
fresh
exits "a server that sends another part" 1 get otherpart/net
has "another part: said" "another part"
nothing "another part"
fresh
exits "a server that lies about the part" 0 get liar/net --sha256 "$sum"
check "lie: its bytes" cmp serve/net "$file"
fresh
exits "busy twice" 0 get busy/net
check "busy: its bytes" cmp serve/net "$file"

# refusals
fresh
exits "wrong sum" 1 get ok/net --sha256 "$newsum"
has "wrong sum: both are named" "$newsum"
nothing "wrong sum"
is "wrong sum: nothing is kept" "$(ls "$W")" ""
exits "published sum" 1 "$ECT" weights get inception --url "$at/ok/net"
has "published size" "should have 95628359"
exits "not that network" 1 get ok/other
has "not that network: said" "no network of EDM"
nothing "not that network"
exits "nothing there" 1 get missing/net
has "404: said" "no such file (404)"
has "404: what to do" "ect weights add $what FILE"
exits "silence" 1 "$ECT" weights get $what --url "$at/stall/net" --tries 1 --timeout 1
has "silence: said" "kept"
nothing "silence"
fresh
exits "redirect to https" 0 get redirect/net
check "redirect: its bytes" cmp serve/net "$file"
fresh
exits "redirect to http" 1 get tohttp/net
has "to http: said" "leads away from HTTPS"
is "to http: not asked" "$(requests '^http ')" 0
nothing "to http"
exits "http" 2 "$ECT" weights get $what --url "http://localhost:$plain/ok/net"
is "http: not asked" "$(requests '^http ')" 0
exits "file" 2 "$ECT" weights get $what --url "file://$TMP/serve/net"
exits "redirects without end" 1 get loop/net
nothing "redirects without end"
exits "untrusted authority" 1 env ECT_CA_FILE="$TMP/other.pem" "$ECT" weights get $what --url "$at/ok/net"
has "untrusted: said" "not trusted"
exits "the system's authorities" 1 env -u ECT_CA_FILE "$ECT" weights get $what --url "$at/ok/net"
exits "another host's certificate" 1 "$ECT" weights get $what --url "https://127.0.0.1:$port/ok/net"
nothing "certificates"
is "certificates: nothing was asked for" "$(requests /ok/)" 0
exits "no server" 1 "$ECT" weights get $what --url https://localhost:1/net --tries 1
has "no server: what to do" "Without a network"
exits "unknown name" 2 "$ECT" weights get inceptoin
has "unknown name: the nearest" "inception"

export XDG_CACHE_HOME="$TMP/cache" ECT_DATA="$TMP/data"
exits "a data set: the published size" 1 "$ECT" data get cifar10 --url "$at/ok/net"
has "a data set: is not that" "should have 170052171"
has "a data set: what to do" "ect data import cifar-10-binary.tar.gz --name cifar10"
is "a data set: nothing is kept" "$(ls "$TMP/cache/ect")" ""

# a full disk: the file-size limit is in blocks of 512 bytes
fresh
out=$( (ulimit -f 600; exec "$ECT" weights get $what --url "$at/ok/net" -q) 2>&1); rc=$?
is "full disk: exit code" $rc 1
has "full disk: what is kept" "make room, and the same command goes on"
nothing "full disk"
exits "with room again" 0 get ok/net
check "with room again: its bytes" cmp serve/net "$file"
is "with room again: from where it was" "$(grep -c 'ok/net bytes=307200-' serve/log)" 1

# two at once
fresh
"$ECT" weights get $what --url "$at/slow/net" > one.out 2>&1 & one=$!
sleep 0.3
"$ECT" weights get $what --url "$at/slow/net" > two.out 2>&1 & two=$!
wait $one; is "two at once: the first" $? 0
wait $two; is "two at once: the second" $? 0
check "two at once: the bytes" cmp serve/net "$file"
is "two at once: fetched once" "$(requests slow/net)" 1
is "two at once: nothing else is left" "$(ls "$W" | tr '\n' ' ')" "SHA256SUMS $what.pkl "

# by hand
cat > init.lua << 'L'
local ect = require "ect"
ect.sweep "tune" { init = "edm-cifar10-32x32-uncond-vp", base = ect.recipe "digits-ect" { iters = 4 }, replicates = 1 }
L
exits "add" 0 "$ECT" weights add edm2-img64-m serve/net
check "add: its bytes" cmp serve/net "$W/edm2-img64-m.safetensors"
exits "get after add" 0 "$ECT" weights get edm2-img64-m --url "$at/missing/x"
has "get after add: it is there" "added by hand"
exits "add of something else" 1 "$ECT" weights add edm2-img64-m serve/other
check "add of something else: the first stays" cmp serve/net "$W/edm2-img64-m.safetensors"
exits "add of no network" 1 "$ECT" weights add inception serve/net
has "add of no network: what is missing" "was not added as inception"
exits "add of no file" 1 "$ECT" weights add inception serve/nosuch
exits "add of text" 1 "$ECT" weights add inception ca.pem
is "add: no copies are left" "$(ls "$W" | grep -c add-)" 0
exits "add of VGG16" 0 "$ECT" weights add vgg16 serve/vgg
has "add of VGG16: not the published one" "not the published file"
exits "add of VGG16 without a bias" 1 "$ECT" weights add vgg16 serve/vgg.cut
has "a bias: named" "features.28.bias"
exits "add of VGG16 with another shape" 1 "$ECT" weights add vgg16 serve/vgg.turned
has "a shape: named" "features.2.weight"
exits "add of LPIPS" 0 "$ECT" weights add lpips-vgg serve/lins
exits "add of LPIPS without a layer" 1 "$ECT" weights add lpips-vgg serve/lins.cut
has "a layer: named" "lin4.model.1.weight' is missing"
exits "add of a narrow LPIPS" 1 "$ECT" weights add lpips-vgg serve/lins.narrow
exits "VGG16 for LPIPS" 1 "$ECT" weights add lpips-vgg serve/vgg
exits "init by a name that is not installed" 6 "$ECT" run init.lua
has "init: what to do" "ect weights get edm-cifar10-uncond-vp"
exits "rm" 0 "$ECT" weights rm edm2-img64-m
is "rm: gone, record too" "$(ls "$W" | grep -c img64-m; grep -c img64-m "$W/SHA256SUMS")" "0
0"
exits "rm of nothing" 2 "$ECT" weights rm edm2-img64-m
exits "check of nothing" 6 "$ECT" weights check inception
has "check of nothing: what to do" "ect weights get inception"
exits "ls" 0 "$ECT" weights ls --json
has "ls: installed" '"installed": true'
finish
