#!/usr/bin/env bash
# Make the shipped model from scratch on a CPU: jobs/compact/train.sh DATA WORK [HELD_OUT [SEED]]
#
# DATA  has deepliif/{train,official,more,large}, endonuke and unlabelled (see the model card)
# WORK  gets panels, runs and, in model/, the model; run it again to go on after a stop
# HELD_OUT  real tiles to leave out (Bladder1, Lung1, 34_3, 6_2, 442, 445 or 448), several with + between them: the model
#       is then in model-without-HELD_OUT/; "none" leaves nothing out
# SEED  of both steps, 1 if not given; another one has folders of its own
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=$(cd "$1" && pwd)
held=${3:-none} seed=${4:-1}
mkdir -p "$2/real"
cd "$2"

cp "$here"/*.yaml .
for name in Bladder1 Lung1; do
  mkdir -p real/$name && cp "$data/deepliif/train/$name.png" real/$name/
done
cp -r "$data"/deepliif/official/{34_3,6_2} "$data"/deepliif/more/{442,445,448} real/

make() { python "$here/make.py" "$@"; }
make_once() {  # FOLDER COMMAND...: what a stop left half done is made anew
  [ -e "$1" ] || { rm -rf "$1.part"; "${@:2}" "$1.part"; mv "$1.part" "$1"; }
}
synthesize() { deepliif-ray panels synthesize "$1" --count 600 --seed 8; }
cameras() { deepliif-ray panels distill teacher cameras.csv "$1" --max-tiles 64 --min-tissue-percent 0; }
endonuke() {
  deepliif-ray panels distill teacher endonuke.csv "$1" --tile-size 400 --min-tissue-percent 10
  make correct "$1" "$data"
}

tail=; [ "$seed" = 1 ] || tail=-$seed
make_once synthetic synthesize
sed "s/^seed: .*/seed: $seed/" pretrain.yaml > "pretrained$tail.yaml"
[ -e "pretrained$tail/model" ] || deepliif-ray train "pretrained$tail.yaml" "pretrained$tail" --engine local
make_once teacher make view pretrained/model
make sources "$data"
make_once cameras cameras
make_once endonuke endonuke
run=finetuned$tail model=model$tail
if [ "$held" != none ]; then
  run=without-$held$tail model=model-without-$held$tail
fi
left_out="real/(${held//+/|})[},[:space:]]"
sed -E "s/^seed: .*/seed: $seed/; s#^init: .*#init: pretrained$tail/model#; \\#$left_out#d" finetune.yaml > "$run.yaml"
[ -e "$run/model" ] || deepliif-ray train "$run.yaml" "$run" --engine local
make average "pretrained$tail/model" "$run/model" averaged
panels=$(ls -d real/* | sed 's/$/ /' | grep -Ev "$left_out")
make call teacher averaged "$model" $panels
rm -r averaged
sed -i "s#\"$PWD/#\"#" "$model/model.json"  # data are named from WORK, wherever that was
