#!/usr/bin/env bash
# On a machine with a GPU and without a network, from the repository's root: tests, then the study, then timings.
#
#   experiments/gpu/run.sh CARRIED OUT UNTIL [STEP...]
#
# CARRIED holds carried.tar.xz (what carried.py packs) and site.tar.xz, the packages that the machine lacks, made by
# pip install --no-deps --target site --python-version 3.12 --only-binary=:all: -c constraints.txt adapters transformers
# tokenizers huggingface_hub datasets peft pydantic pydantic_core annotated-types typing-inspection platformdirs filelock
# dill multiprocess httpx fsspec altair jsonschema jsonschema-specifications referencing rpds-py seqeval; tar cJf site.tar.xz
# -C site . OUT gets what is kept. UNTIL: the study is asked to stop so many seconds after the start; run again it goes on. Steps: tests,
# study, timings; without any, all three.
set -uo pipefail
carried=$1 out=$2 until=$3
shift 3
steps=${*:-tests study timings}
work=/tmp/xadapt-gpu
SECONDS=0
if [ ! -d $work ]; then
  mkdir -p $work/site $work/links $work/carried
  tar xJf "$carried/site.tar.xz" -C $work/site
  tar xJf "$carried/carried.tar.xz" -C $work/carried
  for link in xadapt:xadapt cli:xadapt_cli configs:xadapt_configs; do ln -s "$PWD/${link%:*}" $work/links/${link#*:}; done
fi
export PYTHONPATH=$work/links:$work/site XADAPT_CACHE=$work/cache PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore
export HF_HUB_OFFLINE=1 HF_DATASETS_CACHE=$work/datasets TOKENIZERS_PARALLELISM=false
xadapt=(python3 -P -c 'from xadapt_cli.app import main; main()')
[ -d $work/cache ] || python3 experiments/gpu/carried.py unpack $work/carried $work/cache
echo "set up after $SECONDS s: $(python3 -c 'import torch; print(torch.__version__, torch.cuda.is_available() and torch.cuda.get_device_name())')"

for step in $steps; do
  case $step in
  tests)
    timeout 170 python3 -m pytest -q -p no:cacheprovider -W default tests/test_on_gpu.py 2>&1 | tee "$out/tests.log" | tail -n 40
    ;;
  study)
    timeout --foreground --signal=TERM $((until > SECONDS ? until - SECONDS : 1)) "${xadapt[@]}" run \
      experiments/gpu/compositions.yaml --data $work/carried/data --store $work/runs --jobs "${JOBS:-8}" \
      --save-every 30s > "$out/study.log" 2>&1
    echo "study: exit $? after $SECONDS s, $(grep -c succeeded "$out/study.log") lines of success"
    grep -v -e succeeded -e 'not run' -e '\.\.\.$' "$out/study.log" | tail -n 30
    cp $work/runs/reports/compositions/scores.csv "$out/" 2> /dev/null
    tar cJf $work/records.tar.xz -C $work --exclude='*.safetensors' --exclude='*.lock' --exclude=progress runs
    split -b 15m $work/records.tar.xz "$out/records.tar.xz."
    ;;
  timings)
    python3 experiments/gpu/fusion.py 2>&1 | tee "$out/fusion.log"
    for way in "" --together; do
      start=$SECONDS
      "${xadapt[@]}" train-intermediate --task all --data embedded --max-steps 50 --dtype bfloat16 \
        --store "$work/nine$way" $way > "$out/nine$way.log" 2>&1
      echo "nine adapters $way: $((SECONDS - start)) s"
    done
    python3 experiments/speed/compare.py $work/carried/data --steps 60 2>&1 | tee "$out/compare.log"
    ;;
  esac
  echo "$step ended after $SECONDS s"
done
