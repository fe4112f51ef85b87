# Two commands on a fresh machine with git, make and Rust: make demo, make test. Each installs what it lacks first.
# Works with GNU make 3.81 and a POSIX sh.

SHELL = /bin/sh

CARGO = cargo
# What scripts/deps.sh found: servers, drivers, libclang.
ENV = . ./.deps/env
# Tests and programs in one go, or cargo would build most crates twice, with other features.
BUILD_TESTS = $(CARGO) build --workspace --tests --bins
# The proxy that the tests start. Built before them, so that no test waits for a compiler.
PGSHADOW_BIN = $(CURDIR)/target/debug/pgshadow

.PHONY: help deps build-deps demo-deps test-deps conform-deps lint-deps build demo test lint fmt bench lag loads proof conform flips torture bounded large clean

help:
	@sed -n 's/^# make /make /p' Makefile

# make demo      two throw-away servers, the proxy, a load, one planted difference: about a minute after the build
demo: demo-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && ./target/release/pgshadow demo

# make test      all tests; a missing server is a failure, nothing is skipped
test: test-deps
	$(ENV) && $(BUILD_TESTS)
	$(ENV) && PGSHADOW_BIN='$(PGSHADOW_BIN)' scripts/test.sh

# make torture   30 seeds of random schemas, statements and sessions, a minute each; resumable; docs/torture.md
torture: test-deps
	$(ENV) && $(BUILD_TESTS)
	$(ENV) && PGSHADOW_BIN='$(PGSHADOW_BIN)' ./target/debug/torture

# make bounded   its memory with 2 million rows, 1 GB, 2,000 connections, a target away for 10 minutes; half an hour, resumable
bounded: test-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && PGSHADOW_BIN='$(CURDIR)/target/release/pgshadow' scripts/bounded.sh

# make large     10 GB under load: backfill, verify, compared without pgshadow; what the application feels; how long the applier is held; an hour, resumable (LARGE_GB, FELT_GB, PAIRS, VERIFIES)
large: test-deps
	$(ENV) && $(BUILD_TESTS)
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && PGSHADOW_BIN='$(CURDIR)/target/release/pgshadow' scripts/large.sh

# make lint      format, clippy, shell scripts, the compose file; cargo-deny where it is installed
lint: lint-deps
	$(ENV) && scripts/lint.sh

# make fmt       formats the Rust code
fmt:
	$(CARGO) fmt --all

# make build     the program, as the demo runs it
build: build-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow

# make bench     pgbench through everything there is to compare with (FULL=1: all of it); under an hour, resumable
bench: demo-deps
	-scripts/pgbouncer.sh
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && $(CARGO) build --release -p integration-tests --example forwarder
	$(ENV) && "$$PGSHADOW_PYTHON" scripts/bench

# make proof     how fast verify compares, beside md5 of the same rows; 5 minutes
proof: demo-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && "$$PGSHADOW_PYTHON" scripts/bench/proof.py

# make loads     how fast a backfill loads, beside pg_dump and pg_restore, and pgcopydb where it is installed; 10 minutes
loads: demo-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && "$$PGSHADOW_PYTHON" scripts/bench/loads.py

# make lag       TPC-B at full speed on one core, pgshadow and the target on another: whether apply keeps up; 3 minutes
lag: demo-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && "$$PGSHADOW_PYTHON" scripts/bench/lag.py

# make conform   PostgreSQL's regression and isolation suites, each major as source and target, the long repeats
conform: conform-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && PGSHADOW_BIN='$(CURDIR)/target/release/pgshadow' conform/all.sh

# make flips     50 cutovers and rollbacks under 64 clients of three drivers, and the whole crash matrix; 15 minutes
flips: test-deps
	$(ENV) && $(CARGO) build --release -p pgshadow --bin pgshadow
	$(ENV) && PGSHADOW_BIN='$(CURDIR)/target/release/pgshadow' PGSHADOW_REPEATS=2 $(CARGO) test -p integration-tests --test flip_crash
	$(ENV) && PGSHADOW_BIN='$(CURDIR)/target/release/pgshadow' PGSHADOW_REPEATS=50 PGSHADOW_IDLE=50 $(CARGO) test -p integration-tests --test flip_drivers -- --nocapture

# make deps      installs what is missing for all of these and says what it found
deps:
	@scripts/deps.sh all

build-deps:
	@scripts/deps.sh build

demo-deps:
	@scripts/deps.sh demo

test-deps:
	@scripts/deps.sh test

conform-deps:
	@scripts/deps.sh conform

lint-deps:
	@scripts/deps.sh lint

# make clean     what was built; .deps stays, remove it by hand
clean:
	$(CARGO) clean
