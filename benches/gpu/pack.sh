#!/usr/bin/env bash
# Collects what a machine without a network needs for benches/gpu beside Python and PyTorch, below 60 MiB: our side,
# compiled and stripped, the scripts, and the packages of wheels.txt. Usage: benches/gpu/pack.sh [FOLDER]
#
# There: bash FOLDER/run.sh --device cuda:0
# PYTHON_VERSION is that of the machine's Python (3.12). It brings NVRTC, cuBLASLt and cuDNN with PyTorch, and CUDA's
# headers: where they are neither in PyTorch's packages nor in /usr/local/cuda, CUDA_PATH says where. BINARY names our
# side, if it is built already.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-target/gpu-pack}
python=${PYTHON:-python3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$folder" "$work/gpu"
cp benches/gpu/*.py benches/gpu/cases.json "$work/gpu"

"$python" -m pip install -q --no-deps --no-compile --only-binary=:all: --python-version "${PYTHON_VERSION:-3.12}" \
  --implementation cp --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --target "$work/site" -r benches/gpu/wheels.txt
find "$work/site" -type d -name tests -prune -exec rm -r {} +

# All that they ask for must be there, but PyTorch and what comes with it.
"$python" -m venv "$work/bare"
lacking=$(PYTHONPATH="$work/site" "$work/bare/bin/python" -m pip check |
  grep -vE 'requires (torch|filelock|fsspec|typing-extensions|setuptools), which is not installed' | grep requires || true)
[ -z "$lacking" ] || { echo "$lacking" >&2; exit 1; }
if "$python" -c 'import torch' 2> /dev/null; then
  PYTHONPATH="$work/site" "$python" -B "$work/gpu/test_run.py"
fi

binary=${BINARY:-}
if [ "$binary" = "" ]; then
  PIPE_COMMIT=$(git describe --always --dirty --abbrev=40 --match=)
  export PIPE_COMMIT
  binary=$(cargo test --release --features cuda --bench gpu --no-run --message-format=json |
    "$python" -c 'import json, sys; print([m["executable"] for m in map(json.loads, sys.stdin) if m.get("executable") and m["target"]["name"] == "gpu"][-1])')
fi
strip -o "$work/ours" "$binary"

# Unpacked by Python: a machine with PyTorch may have no xz.
tar -C "$work" --exclude bare --exclude __pycache__ -c . | xz -T0 > "$folder/gpu-pack.tar.xz"
cp benches/gpu/run.sh "$folder"

kib=$(du -sk "$folder" | cut -f1)
echo "$folder: $((kib / 1024)) MiB"
[ "$kib" -lt $((60 * 1024)) ] || { echo "more than 60 MiB" >&2; exit 1; }
