# `just --list` shows these; `just ci` is what CI runs.

fmt:
    cargo fmt

lint:
    cargo clippy --release --all-targets -- -D warnings

test:
    cargo test --release

schema:
    cargo run --release --quiet -- schema --write schemas

docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --release --no-deps

ci:
    bash .ci/run
