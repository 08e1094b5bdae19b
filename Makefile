# Two commands do everything: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := target/tools
# Every cargo call of the tests takes the same packages, targets and features, or cargo compiles the dependencies once more.
FEATURES := --features pheon/polars,pheon-python/sql
# nextest where it is installed, cargo's own runner elsewhere: the same tests.
CARGO_TEST := $(shell cargo nextest --version >/dev/null 2>&1 && echo "cargo nextest run" || echo "cargo test") --workspace --all-targets $(FEATURES)
# A file of tests runs in one process, as many files at a time as there are CPUs.
PYTEST := $(BIN)/python -m pytest -q -n auto --dist loadfile tests
# The extension module takes Python's symbols from the interpreter that loads it. Every cargo call must agree on this too.
export PYO3_BUILD_EXTENSION_MODULE := 1

.PHONY: help demo test test-long fuzz soak mutants coverage bench bench-quick bench-engine bench-layouts fmt lint deny rust-test python-build python-test clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

demo: $(BIN)/python ## build, then share a real dictionary of millions of entries with 8 processes
	$(BIN)/python -m pip install --quiet '.[demo]'
	cd examples && ../$(BIN)/python demo.py

test: lint deny rust-test python-test ## everything that is checked on a change

lint: $(BIN)/.test-deps
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	cargo fmt --manifest-path tests/mutants/Cargo.toml --check
	cargo clippy --workspace --all-targets $(FEATURES) -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace $(FEATURES) --no-deps --quiet
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

deny: ## licences, sources and advisories of what is built in
	@if ! cargo deny --version >/dev/null 2>&1 && [ ! -x $(TOOLS)/bin/cargo-deny ]; then \
		CARGO_PROFILE_DEV_DEBUG=false cargo install --debug --quiet --locked cargo-deny --root $(TOOLS); fi
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" ./tests/check_dependencies.sh

rust-test:
	$(CARGO_TEST)
	cargo test --workspace $(FEATURES) --doc --quiet

$(BIN)/.test-deps: $(BIN)/python pyproject.toml
	$(BIN)/python tests/install_extra.py test
	touch $@

python-build: $(BIN)/.test-deps
	cargo build --workspace --all-targets $(FEATURES)
	$(BIN)/python tests/link_package.py target/debug/lib_native.so

python-test: python-build
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(PYTEST)

test-long: python-build ## the slow versions: more kills, larger data
	PHEON_LONG=1 $(PYTEST)
	PHEON_LONG=1 $(BIN)/python -m pytest -q tests/test_memory_limits.py -k overcommitment
	PHEON_LONG=1 PROPTEST_CASES=2000 $(CARGO_TEST)
	cargo test --workspace $(FEATURES) --test live --test engine -- --ignored
	$(MAKE) fuzz

fuzz: ## run each fuzz target for SECONDS=60, or only TARGETS="csv ndjson"; needs a nightly toolchain
	./fuzz/run.sh $(or $(SECONDS),60) $(TARGETS)

MINUTES ?= 10
soak: python-build ## everything at once for MINUTES minutes, with processes that are killed; at the end nothing is left over
	$(BIN)/python tests/soak.py --minutes $(MINUTES)

# MUTANTS="--match src/index/place.rs --minutes 10", say: all of them take hours.
MUTANTS ?=
mutants: $(BIN)/python ## break the engine in many small ways, one at a time, and list those that no test notices; hours (.cargo/mutants.toml)
	@if [ ! -x $(TOOLS)/bin/cargo-mutants ]; then \
		CARGO_PROFILE_DEV_DEBUG=false cargo install --debug --quiet --locked cargo-mutants --root $(TOOLS); fi
	PATH="$(CURDIR)/$(TOOLS)/bin:$$PATH" $(BIN)/python tests/mutants.py $(MUTANTS)

coverage: $(BIN)/python ## count the tests that run each `unsafe` block; needs LLVM's tools of the compiler's version
	$(BIN)/python tests/unsafe_blocks.py

bench: bench-tools ## measure Pheon beside its peers, answers verified; writes docs/benchmarks*.md, their dated records, the README's tables
	$(BIN)/python -m benches.compare --readme README.md
	$(BIN)/python -m benches.scale
	$(BIN)/python -m benches.tables --readme README.md
	$(BIN)/python -m benches.live --readme README.md
	$(BIN)/python -m benches.remote --readme README.md
	$(BIN)/python -m benches.cold

QUICK := target/bench-quick
bench-quick: bench-tools ## the same with small data and few peers in five minutes; reports and dated records in target/bench-quick
	mkdir -p $(QUICK)
	$(BIN)/python -m benches.compare --rows 200000 --questions 100000 --peers pheon,dict,lmdb --repeat 1 \
		--processes 2 --readers 0 --cache $(QUICK)/data --output $(QUICK)/compare
	$(BIN)/python -m benches.scale --quick --output $(QUICK)/scale
	$(BIN)/python -m benches.tables --quick --only open,keys,lazy,put --output $(QUICK)/tables
	$(BIN)/python -m benches.live --quick --only reads,writes --output $(QUICK)/live
	$(BIN)/python -m benches.remote --quick --output $(QUICK)/remote
	$(BIN)/python -m benches.cold --quick --cache $(QUICK)/data --output $(QUICK)/cold

.PHONY: bench-tools
bench-tools: $(BIN)/python
	$(BIN)/python -m pip install --quiet '.' -r benches/compare/requirements.txt -r benches/tables/requirements.txt \
		-r benches/live/requirements.txt -r benches/remote/requirements.txt
	cargo build --release --quiet -p pheon-cli -p pheon-bench-engine

bench-engine: ## the engine beside the memory system's own bound
	cargo run --release --quiet -p pheon-bench-engine

bench-layouts: ## the index layout beside its alternatives
	cargo run --release --quiet -p pheon-bench-layouts

clean: ## remove what was built
	rm -rf target $(VENV)
