# Every shipped script is sound: its cells, networks, evaluations and claims are checked by a dry run.
. tests/lib.sh
DIR=$(pwd)/experiments
cd "$TMP" || exit 1
for script in "$DIR"/*.lua; do
    name=$(basename "$script")
    exits "$name" 0 "$ECT" run "$script" -n
    case $out in *missing*) ok "$name has cells";; *) not_ok "$name has cells" "$out";; esac
done
exits "help script" 0 "$ECT" help script
has "help script is the example" "ect.sweep \"example\""
exits "parameters of a script" 0 "$ECT" run "$DIR/example.lua" -n --set steps=70
finish
