#!/usr/bin/env bash
# Unpacks what pack.sh made, which lies beside this, and runs it; options are those of run.py.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
[ -e "$here/gpu-pack.tar.xz" ] || { echo "gpu-pack.tar.xz is not beside this: benches/gpu/pack.sh makes it" >&2; exit 2; }
to=$(mktemp -d)
trap 'rm -rf "$to"' EXIT
"$python" -m tarfile -e "$here/gpu-pack.tar.xz" "$to"
PYTHONPATH="$to/site${PYTHONPATH:+:$PYTHONPATH}" "$python" "$to/gpu/run.py" --binary "$to/ours" "$@"
