# `just --list` shows these; `just ci` is what CI runs.

fmt:
    cargo fmt

lint:
    cargo clippy --release --all-targets -- -D warnings

test:
    cargo test --release

# Needs a CUDA machine.
test-gpu:
    PIPE_TEST_DEVICE=cuda:0 cargo test --release --features cuda -- --include-ignored gpu

schema:
    cargo run --release --quiet -- schema --write schemas

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps

ci:
    bash .ci/run
