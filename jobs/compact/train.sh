#!/usr/bin/env bash
# Make the shipped model from scratch, on a CPU: jobs/compact/train.sh DATA WORK
# DATA has deepliif/{train,official,large} and fields/{fhl2_ihc,cd31}.png; WORK gets panels, runs and the model.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
mkdir -p "$2/real" "$2/unlabelled" && cd "$2"
cp "$data"/deepliif/train/{Bladder1,Lung1}.png real/
cp -r "$data"/deepliif/official/{34_3,6_2} real/
cp "$data"/deepliif/large/ROI_{1,7}.png "$data"/fields/{fhl2_ihc,cd31}.png unlabelled/
deepliif-ray panels synthesize synthetic --count 600 --seed 8
deepliif-ray train "$here/pretrain.yaml" pretrained --engine local
