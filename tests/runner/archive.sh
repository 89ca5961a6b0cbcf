# Archives of data sets: unpacked, imported, removed again; whatever leads out of the directory is refused.
. tests/lib.sh
py=
for p in python3 /usr/bin/python3; do
    [ -z "$py" ] && "$p" -c 'import tarfile' 2> /dev/null && py=$p
done
if [ -z "$py" ]; then
    skip "archives" "no python3 here"
    rm -rf "$TMP"
    finish
    exit
fi
cd "$TMP" || exit 1
export ECT_DATA="$TMP/data" XDG_CACHE_HOME="$TMP/cache" OMP_NUM_THREADS=1
unset LD_PRELOAD
is() { if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "$2 instead of $3"; fi; }
"$py" - << 'P'
import gzip, io, tarfile

def entry(t, name, data=b"", **more):
    i = tarfile.TarInfo(name)
    i.size = len(data)
    for k, v in more.items():
        setattr(i, k, v)
    t.addfile(i, io.BytesIO(data))

def rows(seed, n=20):
    return b"".join(bytes([(seed + i) % 10]) + bytes((seed * 31 + i * 7 + k * 13) % 256 for k in range(3072)) for i in range(n))

def cifar(name, format, extra=None):
    with tarfile.open(name, "w:gz", format=format) as t:
        d = "cifar-10-batches-bin"
        entry(t, d, type=tarfile.DIRTYPE, mode=0o755)
        for k in range(1, 6):
            entry(t, f"{d}/data_batch_{k}.bin", rows(k))
        entry(t, f"{d}/test_batch.bin", rows(9))
        entry(t, f"{d}/batches.meta.txt", b"".join(b"class%d\n" % k for k in range(10)))
        if extra:
            extra(t)

cifar("ustar.tar.gz", tarfile.USTAR_FORMAT)
cifar("gnu.tgz", tarfile.GNU_FORMAT)
cifar("pax.tar.gz", tarfile.PAX_FORMAT, lambda t: entry(t, "cifar-10-batches-bin/a", b"b", pax_headers={"mtime": "1.5"}))
cifar("up.tar.gz", tarfile.USTAR_FORMAT, lambda t: entry(t, "../../up", b"x"))
cifar("deep.tar.gz", tarfile.USTAR_FORMAT, lambda t: entry(t, "a/../../../up", b"x"))
cifar("root.tar.gz", tarfile.USTAR_FORMAT, lambda t: entry(t, "/tmp/ect-test-root", b"x"))
cifar("link.tar.gz", tarfile.USTAR_FORMAT, lambda t: entry(t, "link", type=tarfile.SYMTYPE, linkname="/tmp"))
cifar("hard.tar.gz", tarfile.USTAR_FORMAT, lambda t: entry(t, "link", type=tarfile.LNKTYPE, linkname="cifar-10-batches-bin/test_batch.bin"))
cifar("pipe.tar.gz", tarfile.USTAR_FORMAT, lambda t: entry(t, "pipe", type=tarfile.FIFOTYPE))
cifar("twice.tar.gz", tarfile.USTAR_FORMAT, lambda t: entry(t, "cifar-10-batches-bin/test_batch.bin", b"x"))
whole = open("ustar.tar.gz", "rb").read()
open("cut.tar.gz", "wb").write(whole[:-2000])
open("sum.tar.gz", "wb").write(whole[:-8] + bytes(4) + whole[-4:])
plain = bytearray(gzip.decompress(whole))
plain[512 + 136] ^= 1  # a digit of a date
open("head.tar.gz", "wb").write(gzip.compress(bytes(plain)))
head = bytearray(gzip.decompress(whole)[512:1024])
head[124:136] = b"77777777777\0"
head[148:156] = b" " * 8
head[148:156] = b"%06o\0 " % sum(head)
open("huge.tar.gz", "wb").write(gzip.compress(bytes(head) + bytes(1024)))
open("text.tar.gz", "wb").write(b"no archive at all\n" * 100)
open("empty.tar.gz", "wb").write(gzip.compress(b""))
P
mkdir unpacked && tar -xzf ustar.tar.gz -C unpacked
exits "a directory" 0 "$ECT" data import unpacked/cifar-10-batches-bin --name plain
sha=$("$ECT" data show plain --json | grep '"sha"')
for f in ustar.tar.gz gnu.tgz pax.tar.gz; do
    exits "$f" 0 "$ECT" data import $f --name "${f%%.*}"
    has "$f: all of it" "100 images of 32x32x3, 10 classes"
    is "$f: the same data" "$("$ECT" data show "${f%%.*}" --json | grep '"sha"')" "$sha"
done
is "what was unpacked is gone" "$(ls cache/ect)" ""
refused() { exits "$1" 1 "$ECT" data import "$1.tar.gz" --name bad; has "$1: why" "$2"; }
refused up "'../../up' leads out"
refused deep "leads out of the directory"
refused root "leads out of the directory"
refused link "'link' is neither a file nor a directory"
refused hard "neither a file nor a directory"
refused pipe "neither a file nor a directory"
refused twice "File exists"
refused cut "cut"
refused sum "damaged"
refused head "damaged"
refused huge "more than is allowed"
refused text "no tar archive"
refused empty "it is empty"
is "nothing was imported" "$(ls data | tr '\n' ' ')" "gnu.safetensors pax.safetensors plain.safetensors ustar.safetensors "
is "nothing is left" "$(ls cache/ect)" ""
is "nothing elsewhere" "$(ls -d up cache/up cache/ect/up /tmp/ect-test-root 2> /dev/null)" ""
exits "data get of an unknown name" 2 "$ECT" data get cifra10
has "the nearest" "cifar10"
exits "data get, changed, without a name" 2 "$ECT" data get cifar10 --size 16
exits "no cifar10" 6 "$ECT" train digits-ect --set data=cifar10 --set iters=1
has "says how to get it" "ect data get cifar10"
rm -rf "$TMP"
finish
