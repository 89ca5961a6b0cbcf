# Looking after a ledger: check, backup, vacuum, merge; tags, notes and hidden runs.
. tests/lib.sh
cp tests/runner/tiny.lua "$TMP"; cd "$TMP" || exit 1
export OMP_WAIT_POLICY=passive
q() { "$ECT" sql "$1" --csv | tail -n +2 | tr -d '\r'; }
exits "a sweep" 0 "$ECT" run tiny.lua
run=$(q "SELECT min(run) FROM v_run")
exits "check" 0 "$ECT" ledger check
has "it is sound" "is sound"
exits "tag" 0 "$ECT" tag keep "$run"
exits "tag again" 0 "$ECT" tag keep "$run"
exits "what is tagged" 0 "$ECT" sql "SELECT run, tag FROM v_tag" --csv
has "one row" "$run,keep"
exits "ls by tag" 0 "$ECT" ls --tag keep --json
has "the tagged run" "$run"
exits "ls of an unknown tag" 2 "$ECT" ls --tag kep
has "nearest tag" "did you mean keep"
exits "ls of an unknown status" 2 "$ECT" ls --status don
has "nearest status" "did you mean done"
exits "show says the tag" 0 "$ECT" show "$run"
has "the tag in show" "keep"
exits "untag" 0 "$ECT" tag --delete keep "$run"
[ "$(q "SELECT count(*) FROM v_tag")" = 0 ] && ok "nothing is tagged" || not_ok "nothing is tagged"
exits "note" 0 "$ECT" note "$run" "looks odd after step 2"
exits "read it" 0 "$ECT" note "$run"
has "the text" "looks odd after step 2"
exits "rm" 0 "$ECT" rm "$run"
exits "hidden in ls" 0 "$ECT" ls --json
case $out in *"$run"*) not_ok "ls leaves it out" "$out";; *) ok "ls leaves it out";; esac
exits "rm --undo" 0 "$ECT" rm --undo "$run"
exits "back in ls" 0 "$ECT" ls --json
has "ls has it" "$run"
exits "an unknown run" 2 "$ECT" tag keep 0000000000000000

echo '[{"metric": "fid", "value": 2.15, "nfe": 2, "samples": 50000}, {"metric": "fid", "value": 3.6, "nfe": 1, "samples": 50000}]' > r.json
exits "numbers of another tool" 0 "$ECT" eval add "$run" --evaluator "clean-fid 0.1.35" --json r.json
[ "$(q "SELECT group_concat(value, ' ') FROM (SELECT value FROM v_eval WHERE run = '$run' AND metric = 'fid' ORDER BY nfe)")" = "3.6 2.15" ] && ok "they are there" || not_ok "they are there"
case $("$ECT" sql "SELECT canon FROM v_evaluator WHERE canon LIKE '%clean-fid%'" --csv) in *"outside ect"*) ok "under their own evaluator";; *) not_ok "under their own evaluator";; esac
echo '[{"metric": "fid", "value": 1, "nfe": 4, "samples": 9}, {"metric": "fid", "valeu": 1}]' > r.json
exits "a slip in the file" 1 "$ECT" eval add "$run" --evaluator x --json r.json
has "which, and the nearest key" "did you mean value"
[ "$(q "SELECT count(*) FROM v_eval WHERE nfe = 4 AND metric = 'fid'")" = 0 ] && ok "nothing of it is recorded" || not_ok "nothing of it is recorded"

exits "backup" 0 "$ECT" ledger backup copy.db
exits "backup does not overwrite" 2 "$ECT" ledger backup copy.db
exits "the copy is sound" 0 "$ECT" ledger check --ledger copy.db
exits "vacuum" 0 "$ECT" ledger vacuum
exits "merge into a new ledger" 0 "$ECT" ledger merge ect.db copy.db --ledger all.db
has "both were read" "copy.db: 6 runs, 0 of them new"
exits "the union is sound" 0 "$ECT" ledger check --ledger all.db
for v in v_run v_metric v_param v_trial; do
    a=$("$ECT" sql "SELECT count(*) FROM $v" --csv); b=$("$ECT" sql "SELECT count(*) FROM $v" --csv --ledger all.db)
    [ -n "$a" ] && [ "$a" = "$b" ] && ok "the union has all of $v" || not_ok "the union has all of $v" "$a, $b"
done
exits "merge of nothing" 2 "$ECT" ledger merge nothere.db
[ ! -e nothere.db ] && ok "merge makes no source" || not_ok "merge makes no source"
exits "an unknown verb" 2 "$ECT" ledger chek
has "nearest verb" "did you mean check"
finish
