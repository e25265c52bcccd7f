#!/usr/bin/env bash
# Make the shipped model from scratch on a CPU: jobs/compact/train.sh DATA WORK [HELD_OUT]
#
# DATA  has deepliif/{train,official,large} (see the model card)
# WORK  gets panels, runs and, in model/, the model; run it again to go on after a stop
# HELD_OUT  a real tile to leave out (Bladder1, Lung1, 34_3 or 6_2): the model is then in without-HELD_OUT/model
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2/real" "$2/unlabelled"
cd "$2"

cp "$here"/*.yaml .
cp "$data"/deepliif/train/{Bladder1,Lung1}.png real/
cp -r "$data"/deepliif/official/{34_3,6_2} real/
cp "$data"/deepliif/large/ROI_{1,7}.png unlabelled/

[ -e synthetic ] || deepliif-ray panels synthesize synthetic --count 600 --seed 8
[ -e pretrained/model ] || deepliif-ray train pretrain.yaml pretrained --engine local
[ -e distilled ] || deepliif-ray panels distill pretrained/model unlabelled distilled --assume-mpp 0.25
if [ $# -gt 2 ]; then
  grep -v "real/$3" finetune.yaml > "without-$3.yaml"
  deepliif-ray train "without-$3.yaml" "without-$3" --engine local
else
  deepliif-ray train finetune.yaml finetuned --engine local
  cp -r finetuned/model model
fi
