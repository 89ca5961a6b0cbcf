# Pictures out and in again: a data set written as a zip or an .npz and imported is the same data set.
. tests/lib.sh
export ECT_DATA="$TMP/data" # where imports go
cd "$TMP" || exit 1
sha() { "$ECT" data show "$1" | awk '$1 == "sha" { print $2 }'; }
want=$(sha digits)
for form in zip npz; do
    check "digits as .$form" "$ECT" data export digits d.$form
    check "and back" "$ECT" data import d.$form --name back-$form
    got=$(sha back-$form)
    if [ -n "$want" ] && [ "$got" = "$want" ]; then ok "the same images and labels"; else not_ok "the same images and labels" "$got instead of $want"; fi
done
check "digits as a folder" "$ECT" data export digits folder
n=$(find folder -name '*.png' | wc -l); k=$(find folder -mindepth 1 -type d | wc -l)
if [ "$n" -eq 1797 ] && [ "$k" -eq 10 ]; then ok "one file an image, one directory a class"; else not_ok "one file an image, one directory a class" "$n files, $k directories"; fi
check "and back" "$ECT" data import folder --name back-folder
out=$("$ECT" data show back-folder); has "with its classes" "10, of 174 to 183 images"
exits "points are no pictures" 2 "$ECT" data export gauss8 x.zip
has "and told so" "points, not pictures"
exits "another ending" 2 "$ECT" data export digits x.tar
has "is answered with those there are" ".zip (a data set as EDM reads it)"
check "twice the same bytes" "$ECT" data export digits e.zip
check "in the zip" cmp d.zip e.zip
cd / || exit 1
rm -rf "$TMP"
finish
