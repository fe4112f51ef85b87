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
git ls-files '*.sh' .ci/run | xargs "$tools/shellcheck" --external-sources --source-path=SCRIPTDIR

step docker-compose config
# The binary itself: the package's wrapper in bin/ loses its exit code.
for compose in .deps/venv/lib/python3*/site-packages/compose/docker-compose; do
    "$compose" config --quiet
done

step dependencies
# The two rules of deny.toml that a lock file can show, in case that cargo-deny isn't there.
if grep -E '^name = "(openssl-sys|aws-lc-sys)"' Cargo.lock; then
    echo "Cargo.lock: a crate that deny.toml forbids" >&2
    exit 1
fi
if grep '^source = ' Cargo.lock | grep -v '"registry+https://github.com/rust-lang/crates.io-index"'; then
    echo "Cargo.lock: a source other than crates.io" >&2
    exit 1
fi
if cargo deny --version >/dev/null 2>&1; then
    cargo deny check
else
    echo "deny.toml's licences are not checked: cargo-deny is not installed"
fi
echo "lint: ok"
