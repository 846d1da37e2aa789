#!/usr/bin/env bash
# Collects what a machine without a network needs for benches/gpu, below 60 MiB: our side, compiled and
# stripped, and the wheels that PyTorch's image may lack. Usage: benches/gpu/pack.sh [FOLDER]
#
# There: python -m pip install -q --no-index --no-deps --target /tmp/site FOLDER/*.whl
#        xz -dc FOLDER/gpu.xz > /tmp/gpu && chmod +x /tmp/gpu
#        PYTHONPATH=/tmp/site python benches/gpu/run.py --binary /tmp/gpu
# CUDA's headers and NVRTC must be there too, and for speed cuBLASLt and cuDNN, as PyTorch brings them: CUDA_PATH says where, if it is not /usr/local/cuda.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-target/gpu-pack}
mkdir -p "$folder"
python=${PYTHON:-python3}

"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
  --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --dest "$folder" \
  diffusers==0.42.1 peft==0.21.2 accelerate transformers==5.24.0 safetensors tokenizers huggingface-hub \
  importlib-metadata zipp

if [ "${WHEELS_ONLY:-}" = "" ]; then
  binary=$(cargo test --release --features cuda --bench gpu --no-run --message-format=json |
    "$python" -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "gpu"][-1])')
  strip -o "$folder/gpu" "$binary"
  xz -T0 -f "$folder/gpu"
fi

kib=$(du -sk "$folder" | cut -f1)
echo "$folder: $((kib / 1024)) MiB"
[ "$kib" -lt $((60 * 1024)) ] || { echo "more than 60 MiB" >&2; exit 1; }
