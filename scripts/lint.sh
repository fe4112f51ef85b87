#!/bin/sh
# Format, clippy, shell scripts, compose file, dependencies. Called by `make lint`, which installs the tools first.
set -eu
cd "$(dirname "$0")/.."
tools=.deps/venv/bin

step() { printf '== %s\n' "$*"; }

step cargo fmt
cargo fmt --all --check

step cargo clippy
cargo clippy --workspace --all-targets --quiet -- -D warnings

step shellcheck
git ls-files '*.sh' .ci/run | xargs "$tools/shellcheck"

step docker-compose config
"$tools/docker-compose" config --quiet

step cargo deny
if cargo deny --version >/dev/null 2>&1; then
    cargo deny --all-features check
else
    echo "not checked: cargo-deny is not installed (cargo install cargo-deny)"
fi
echo "lint: ok"
