# The command line: help, versions, mistakes, FLOPs from structure alone.
. tests/lib.sh
GOLDEN=$(pwd)/tests/golden/flops.json
cd "$TMP" || exit 1
exits "--version" 0 "$ECT" --version
has "version text" "ect 0."
exits "help" 0 "$ECT" help
has "help names every command" "pareto"
exits "help of a command" 0 "$ECT" help run
has "help of run shows options" "--dry-run"
exits "--help after a command" 0 "$ECT" run --help
exits "help settings" 0 "$ECT" help settings
has "settings with defaults" "loss.share_noise"
exits "help targets" 0 "$ECT" help targets
has "help targets lists distillation" "cd     6F"
exits "help design" 0 "$ECT" help design
has "help design shows equations" "curriculum.ict"
exits "help recipes" 0 "$ECT" help recipes
has "recipes" "digits-ect"
has "networks" "cifar10-ddpmpp"
exits "no arguments" 0 "$ECT"
exits "unknown command" 2 "$ECT" lss
has "nearest command" "did you mean"
exits "unknown option" 2 "$ECT" ls --ledgr x
has "nearest option" "--ledger"
exits "option without its value" 2 "$ECT" ls --ledger
exits "flag with a value" 2 "$ECT" ls --json=1
exits "bad number" 2 "$ECT" run x.lua -j two
exits "too many arguments" 2 "$ECT" ls extra
exits "too few arguments" 2 "$ECT" show
exits "no ledger" 2 "$ECT" ls
has "no ledger: what to do" "ect run SCRIPT"
exits "doctor" 0 "$ECT" doctor
has "doctor: data" "1797 images"
has "doctor: SQLite" "SQLite 3"
has "doctor: no CUDA, and why" "ect_cuda.so"
exits "doctor --json" 0 "$ECT" doctor --json
exits "no script" 2 "$ECT" run nothere.lua
has "no script: which" "no script at nothere.lua"
exits "missing device" 5 "$ECT" run nothere.lua --device cuda
exits "unknown recipe" 2 "$ECT" train digits-ecd
has "nearest recipe" "digits-ec"

# options may stand anywhere; -- ends them
printf '{}' > empty.lua
exits "options after arguments" 2 "$ECT" run -n empty.lua -j1 --ledger=x.db
exits "unknown network" 2 "$ECT" flops cifar10-ddpmp
has "nearest network" "cifar10-ddpmpp"

# flops NET KEY: the entry of the published count
same() { # NAME FILE-ENTRY ARGS...
    name=$1 entry=$2; shift 2
    "$ECT" flops "$@" --json > got.json || { not_ok "$name" "exit $?"; return; }
    for key in total_flops total_flops_without_resample linear conv3x3 conv1x1 resample_depthwise_conv attention_matmul params; do
        want=$(sed -n "/^ \"$entry\": {/,/^ }/p" "$GOLDEN" | sed -n "s/^ *\"$key\": \([0-9]*\),*$/\1/p" | head -1)
        got=$(sed -n "s/^ *\"$key\": \([0-9]*\),*$/\1/p" got.json | head -1)
        [ -n "$want" ] && [ "$want" = "$got" ] || { not_ok "$name" "$key: $got instead of $want"; return; }
    done
    ok "$name"
}
same "flops of cifar10-ddpmpp" cifar10_ddpmpp_uncond cifar10-ddpmpp
same "flops of cifar10-ddpmpp, class-conditional" cifar10_ddpmpp_cond cifar10-ddpmpp --set net.cond=true
exits "flops for people" 0 "$ECT" flops cifar10-ddpmpp
has "flops in G" "42.4G"
for name in cifar10-ect imagenet64-ect-s; do
    exits "flops of $name without its data set" 0 env ECT_DATA="$TMP/nodata" "$ECT" flops "$name"
done
exits "a dry run of cifar10-ect without its data set" 0 env ECT_DATA="$TMP/nodata" "$ECT" train cifar10-ect -n
has "tells how to get it" "ect data get cifar10"
exits "training needs it" 6 env ECT_DATA="$TMP/nodata" "$ECT" train cifar10-ect
has "and tells how to get it too" "ect data get cifar10"
exits "a data set of no known shape" 6 env ECT_DATA="$TMP/nodata" "$ECT" train cifar10-ect -n --set data=ours
exits "flops of a recipe" 0 "$ECT" flops digits-ect
exits "flops, bad setting" 2 "$ECT" flops cifar10-ddpmpp --set net.widht=8
has "flops, nearest setting" "net.width"

# start-up: nothing is initialised for --version; generous bound, the sanitizers are slow
begin=$(date +%s%N); for i in 1 2 3 4 5 6 7 8 9 10; do "$ECT" --version > /dev/null; done; end=$(date +%s%N)
ms=$(((end - begin) / 10000000))
if [ $ms -lt 200 ]; then ok "--version starts fast"; else not_ok "--version starts fast" "$ms ms"; fi
finish
