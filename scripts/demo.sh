#!/usr/bin/env bash
# The whole path in minutes, on data that needs no download: `bash scripts/demo.sh`.
# Makes digitally reconstructed radiographs, pretrains a very small world model on them and evaluates it; then the
# shipped encoder writes their embeddings, and the shipped segmentation model outlines a real chest film. Results are in
# demo_output/. Safe to run again: finished parts are kept, an interrupted training is resumed.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/environment.sh

out="$PWD/demo_output"
run="$out/pretraining"
presets="'configs/presets/demo.yaml'"

echo "1/5  Digitally reconstructed radiographs of virtual patients"
cxw-monai render --output "$out/drr" --patients 24 --size 256 --views PA AP --seed 0

cd bundles/chexworld_pretraining
echo "2/5  Pretraining"
python -m monai.bundle run training --config_file "['configs/train.json',$presets]" \
    --datalist "$out/drr/manifest.csv" --output_dir "$run" --resume true
echo "3/5  Held-out losses against baselines"
python -m monai.bundle run evaluating --config_file "['configs/train.json',$presets,'configs/evaluate.json']" \
    --datalist "$out/drr/manifest.csv" --output_dir "$run"
echo "4/5  Embeddings by the shipped encoder"
cxw-monai embed "$out/drr/manifest.csv" --output "$out"

echo "5/5  A film of a person, segmented by the shipped model"
film="$(python -c 'from pydicom.data import get_testdata_file; print(get_testdata_file("RG1_UNCR.dcm", download=False))')"
cxw-monai segment "$film" --output "$out/segmentation"

cp "$run/curves.png" "$run/world_views.png" "$run/evaluation.json" "$out/"
echo
echo "Done. 24 patients and 60 epochs show the path, not what it can do: warnings of collapse and baselines that are NOT beaten"
echo "are to be expected here (docs/learning.md has what hours of training reach). Look at:"
echo "  demo_output/world_views.png   what the model is shown: crops on the whole film, perturbed copies, masks"
echo "  demo_output/curves.png        losses, held-out baselines, collapse monitors"
echo "  demo_output/evaluation.json   held-out losses"
echo "  demo_output/embeddings.csv    one row per film (embeddings.npz for NumPy)"
echo "  demo_output/segmentation/     RG1_UNCR/overlay.png, segmentation.dcm (DICOM SEG), masks, measurements.csv"
