# The verbs of this checkout; `make help` lists them. Each does all that it needs, and what is done already takes no time.
#
# The wasm modules are built once, here, for the host build and the tests alike: cargo's own nested build (node/build.rs) is
# for those who type `cargo build`.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup modules build run test check bench release clean

# A Rust that `make setup` has just installed is not on the caller's PATH yet.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
WASM_DIR := $(TARGET_DIR)/wasm
# The module that is built into the binary, and those that `make modules` and the tests build as well; the last two are for
# tests only.
DEFAULT_MODULE := kvstore-wasm
MODULES := counter ledger lock queue hostile balsa-sdk-fixture
# Where they end up; node/build.rs and node/src/testing.rs look there.
export BALSA_MODULES_DIR := $(WASM_DIR)/wasm32-wasip1/wasm
export BALSA_KVSTORE_WASM := $(BALSA_MODULES_DIR)/kvstore_wasm.wasm
export BALSA_HOSTILE_WASM := $(BALSA_MODULES_DIR)/hostile.wasm
export BALSA_COUNTER_C_WASM := $(WASM_DIR)/counter-c/counter.wasm
export BALSA_TEST_PYTHON := $(CURDIR)/target/venv/bin/python

# For scripts: LOCKED=--locked fails instead of changing Cargo.lock, TEST_ARGS goes to `cargo test`, BENCH_ARGS to `balsa
# bench`.
LOCKED ?=
TEST_ARGS ?=
BENCH_ARGS ?=
# The local cluster of `make run`: its directory, its first port (6000 if empty), and RUN_ONCE=1 to stop after the check.
RUN_DIR ?= .balsa
PORT ?=
RUN_ONCE ?=

say = @printf '\033[1m==> %s\033[0m\n' "$(1)"
ifeq ($(shell test -t 1 && echo tty),)
say = @printf '==> %s\n' "$(1)"
endif

help: ## Say what there is
	@echo "Balsa. The verbs:"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'
	@echo "First time here? make run"

setup: ## Install what is missing (compiler, Rust, the wasm target); quick when all is there
	@.ci/setup build

.PHONY: setup-test setup-check setup-modules default-module
setup-test:
	@.ci/setup build modules test

setup-check:
	@.ci/setup build check

setup-modules:
	@.ci/setup build modules

# Paths of this machine are taken out, so that the same sources give the same module anywhere.
BUILD_WASM_IN = CARGO_ENCODED_RUSTFLAGS="$$(printf '%s\037%s' --remap-path-prefix=$(CURDIR)=/balsa \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo)" \
	$(CARGO) build $(LOCKED) --profile wasm --target wasm32-wasip1 --target-dir
BUILD_WASM = $(BUILD_WASM_IN) "$(WASM_DIR)"

default-module: setup
	$(call say,building the default module (a minute the first time))
	@$(BUILD_WASM) -p $(DEFAULT_MODULE)

modules: setup-modules ## Build the wasm modules of modules/, the one in C included
	$(call say,building the wasm modules (a minute the first time))
	@$(BUILD_WASM) $(addprefix -p ,$(DEFAULT_MODULE) $(MODULES))
	@$(MAKE) --no-print-directory -C modules/counter-c BUILD="$(WASM_DIR)/counter-c"

build: default-module ## Build the default module and the binary, target/debug/balsa
	$(call say,building balsa (several minutes the first time: it contains a compiler for wasm))
	@$(CARGO) build $(LOCKED) -p balsa

run: build ## Start three nodes on this host, check them, and show what to try; Ctrl-C stops them
	$(call say,starting a local cluster in $(RUN_DIR))
	@exec "$(TARGET_DIR)/debug/balsa" up --dir "$(RUN_DIR)" --check $(if $(PORT),--port $(PORT)) $(if $(RUN_ONCE),--once)

# It shares what `build` compiles, but for a few small crates (.ci/features keeps it so). So does the previous
# commit's program, for the test that goes over from it to this one's.
test: setup-test modules ## Run all tests
	$(call say,building the previous commit's program (minutes for a new commit))
	@CARGO="$(CARGO)" CARGO_TARGET_DIR="$(TARGET_DIR)" .ci/previous "$(TARGET_DIR)/previous"
	$(call say,building and running the tests (several minutes the first time: they contain a compiler for wasm))
	@BALSA_PREVIOUS_BINARY="$$(cat "$(TARGET_DIR)/previous/path")" $(CARGO) test $(LOCKED) --workspace $(TEST_ARGS)

check: setup-check default-module ## Check formatting, features, lints and documentation; changes nothing
	$(call say,formatting)
	@$(CARGO) fmt --all --check
	$(call say,features)
	@.ci/features
	$(call say,lints)
	@$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(call say,documentation)
	@RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items

bench: release ## Measure a local cluster of release binaries; BENCH_ARGS="..." goes to balsa bench
	@.ci/bench "$(TARGET_DIR)/x86_64-unknown-linux-gnu/release/balsa" $(BENCH_ARGS)

.PHONY: bench-swap
bench-swap: release # Measure what clients notice when a module is swapped, and when it migrates
	@$(BUILD_WASM_IN) "$(WASM_DIR)/rewrite" -p $(DEFAULT_MODULE) --features rewrite
	@.ci/bench-swap "$(TARGET_DIR)/x86_64-unknown-linux-gnu/release/balsa" "$(BALSA_KVSTORE_WASM)" \
		"$(WASM_DIR)/rewrite/wasm32-wasip1/wasm/kvstore_wasm.wasm" $(BENCH_ARGS)

# Static without musl: the target is named so that the flag is not applied to build scripts.
release: default-module ## Build one static release binary
	$(call say,building the release binary (many minutes the first time))
	@RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build $(LOCKED) --release --target x86_64-unknown-linux-gnu -p balsa
	@ls -l "$(TARGET_DIR)/x86_64-unknown-linux-gnu/release/balsa"

clean: ## Remove all that was built; the data of local clusters (.balsa) stays
	@$(CARGO) clean
	@rm -rf target
