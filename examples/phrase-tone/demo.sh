#!/usr/bin/env bash
# The example end to end, offline. `make demo` sets up the environment and calls this.
set -euo pipefail
cd "$(dirname "$0")"
export HF_HUB_OFFLINE=1

if [ ! -f base-model/model.safetensors ]; then
    echo "== Building the small Phi-3 base model from the example's own text"
    python build_base_model.py
fi

echo
echo "== Fine-tune, merge, quantise, convert: olive run --config olive-config.json"
olive run --config olive-config.json

echo
echo "== The same in the canonical form; what was made is in the cache, and now it is measured: olivine run --config workflow.yaml"
olivine run --config workflow.yaml

echo
echo "== The app asks the model"
for phrase in "cricket is a wonderful sport!" "I heard footsteps behind me in the dark street." "دلم برای خانه‌ی کودکی‌ام تنگ شده و گریه می‌کنم."; do
    printf '%s\n    -> %s\n' "$phrase" "$(python app.py --phrase "$phrase" --model-path models/phrase-tone)"
done
