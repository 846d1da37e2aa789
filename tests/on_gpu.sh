#!/usr/bin/env bash
# Runs what compares with reference values on a GPU, each test in a process of its own: compiling what one test needs
# takes up to half a minute, and one process compiles one thing at a time.
#
#   cargo test --release --features cuda --no-run        prints the two binaries
#   tests/on_gpu.sh target/release/deps/it-* [target/release/deps/pipe-*]
#
# TESTS names others than these, by parts of their names.
set -euo pipefail
export PIPE_TEST_DEVICE=${PIPE_TEST_DEVICE:-cuda:0}
logs=$(mktemp -d)
one() {
  local log
  log=$3/$(basename "$1").${2//:/.}
  if timeout 300 "$1" --exact "$2" > "$log" 2>&1; then echo "passed $2"; else echo "FAILED $2, see $log"; fi
}
export -f one
for binary in "$@"; do
  "$binary" --list --format terse ${TESTS:-golden parity ltx_ training agree reference external_golden moved_to_the_host} |
    sed -n 's/: test$//p' | sed "s|^|$binary |; s|\$| $logs|"
done | xargs -P "$(nproc)" -L 1 bash -c 'one "$@"' _ | tee "$logs/all"
! grep FAILED "$logs/all"
