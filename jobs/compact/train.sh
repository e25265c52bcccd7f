#!/usr/bin/env bash
# Make the shipped model from scratch on a CPU: jobs/compact/train.sh DATA WORK [HELD_OUT]
#
# DATA  has deepliif/{train,official,large} (see the model card)
# WORK  gets panels, runs and, in model/, the model; run it again to go on after a stop
# HELD_OUT  a real tile to leave out (Bladder1, Lung1, 34_3 or 6_2): the model is then in model-without-HELD_OUT/
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2/real" "$2/unlabelled"
cd "$2"

cp "$here"/*.yaml .
cp "$data"/deepliif/train/{Bladder1,Lung1}.png real/
cp -r "$data"/deepliif/official/{34_3,6_2} real/
cp "$data"/deepliif/large/ROI_{1,7}.png unlabelled/

make_once() {  # FOLDER COMMAND...: what a stop left half done is made anew
  [ -e "$1" ] || { rm -rf "$1.part"; "${@:2}" "$1.part"; mv "$1.part" "$1"; }
}
synthesize() { deepliif-ray panels synthesize "$1" --count 600 --seed 8; }
distill() { deepliif-ray panels distill pretrained/model unlabelled "$1" --assume-mpp 0.25; }

make_once synthetic synthesize
[ -e pretrained/model ] || deepliif-ray train pretrain.yaml pretrained --engine local
make_once distilled distill
run=finetuned model=model
if [ $# -gt 2 ]; then
  run=without-$3 model=model-without-$3
fi
grep -v "real/${3:-nothing}" finetune.yaml > "$run.yaml"
[ -e "$run/model" ] || deepliif-ray train "$run.yaml" "$run" --engine local
python "$here/average.py" pretrained/model "$run/model" "$model"
sed -i "s#\"$PWD/#\"#" "$model/model.json"  # data are named from WORK, wherever that was
