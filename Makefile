# The verbs of this checkout; `make help` lists them. Each does all that it needs, and what is done already takes no time.
#
# The wasm modules are built once, here, for the host build and the tests alike: cargo's own nested build (node/build.rs) is
# for those who type `cargo build`.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help setup modules build run test check bench release images clean

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

# Where `make release` puts the binary, on whatever processor: images are built on arm, too.
RELEASE_TARGET := $(shell uname -m)-unknown-linux-gnu
RELEASE := $(TARGET_DIR)/$(RELEASE_TARGET)/release/balsa

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

.PHONY: setup-test setup-check setup-modules setup-manifests default-module
setup-test:
	@.ci/setup build modules test

setup-check:
	@.ci/setup build check

setup-manifests:
	@.ci/setup build manifests

setup-modules:
	@.ci/setup build modules

# Paths of this machine are taken out of what modules say in panics. (Cargo still orders functions by a hash of these arguments, so
# that two checkouts give modules of other bytes.)
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
# commit's program, for the test that goes over from it to this one's. A Kubernetes is tested beside cargo's tests, since both wait for
# most of their time: what takes long to compile is compiled before. TEST_ARGS asks for some of cargo's tests, and has neither.
ifeq ($(TEST_ARGS),)
test: setup-test modules test-manifests static kubernetes previous ## Run all tests
	$(call say,building the tests (several minutes the first time: they contain a compiler for wasm))
	@$(CARGO) test $(LOCKED) --workspace --no-run
	$(call say,running them$(comma) and beside them those on Kubernetes; what is in $(TARGET_DIR)/kubernetes.log shows in one piece at its end)
	@$(MAKE) --no-print-directory -j 2 test-cargo test-beside
else
test: setup-test modules test-manifests test-cargo
endif

comma := ,
PREVIOUS := $(TARGET_DIR)/previous
.PHONY: previous
previous: setup-test
	$(call say,building the previous commit's program (minutes for a new commit))
	@CARGO="$(CARGO)" CARGO_TARGET_DIR="$(TARGET_DIR)" .ci/previous "$(PREVIOUS)"

# What `test` has set up and built, side by side. Each goes on to its end when the other one has failed.
.PHONY: test-cargo test-beside
test-cargo:
	@unset MAKEFLAGS MFLAGS; BALSA_PREVIOUS_BINARY="$(if $(TEST_ARGS),,$$(cat "$(PREVIOUS)/path"))" \
		$(CARGO) test $(LOCKED) --workspace $(TEST_ARGS)

# Where the kernel allows no containers, a line says that it was skipped.
test-beside:
	@unset MAKEFLAGS MFLAGS; $(TEST_ON_KUBERNETES) >"$(TARGET_DIR)/kubernetes.log" 2>&1 && status=0 || status=$$?; \
		cat "$(TARGET_DIR)/kubernetes.log"; [ $$status = 0 ] || [ $$status = 77 ]

.PHONY: kubernetes
kubernetes: # Install and build the Kubernetes that the tests run on
	$(call say,building a Kubernetes (six minutes the first time))
	@k8s/test/run --prepare || [ $$? = 77 ]

# TEST_MANIFESTS_ARGS goes to pytest. Bytecode and caches would lie about in the checkout.
.PHONY: test-manifests
test-manifests: setup-manifests default-module # Test the manifests and the scripts beside them; no cluster, no docker
	$(call say,testing the manifests)
	@PYTHONDONTWRITEBYTECODE=1 PATH="$(CURDIR)/target/venv/bin:$$PATH" \
		target/venv/bin/python -m pytest -q -p no:cacheprovider k8s/tests $(TEST_MANIFESTS_ARGS)

# `kubectl apply -k` takes files, so the default module is in the repository; k8s/tests/test_module.py says when it is not the sources' any more.
.PHONY: shipped-module
shipped-module: default-module # Renew k8s/base/kvstore.wasm
	@install -m 644 "$(BALSA_KVSTORE_WASM)" k8s/base/kvstore.wasm
	@k8s/tests/sources >k8s/tests/kvstore.sources

check: setup-check default-module ## Check formatting, features, lints and documentation; changes nothing
	$(call say,formatting)
	@$(CARGO) fmt --all --check
	$(call say,features)
	@.ci/features
	$(call say,lints)
	@$(CARGO) clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(call say,documentation)
	@RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" $(CARGO) doc $(LOCKED) --workspace --no-deps --document-private-items

bench: release ## Measure a local cluster of release binaries; BENCH_ARGS="..." goes to balsa bench
	@.ci/bench "$(RELEASE)" $(BENCH_ARGS)

.PHONY: bench-swap
bench-swap: release # Measure what clients notice when a module is swapped, and when it migrates
	@$(BUILD_WASM_IN) "$(WASM_DIR)/rewrite" -p $(DEFAULT_MODULE) --features rewrite
	@.ci/bench-swap "$(RELEASE)" "$(BALSA_KVSTORE_WASM)" \
		"$(WASM_DIR)/rewrite/wasm32-wasip1/wasm/kvstore_wasm.wasm" $(BENCH_ARGS)

# Static without musl: the target is named so that the flag is not applied to build scripts.
release: default-module ## Build one static release binary
	$(call say,building the release binary (many minutes the first time))
	@RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build $(LOCKED) --release --target $(RELEASE_TARGET) -p balsa
	@ls -l "$(RELEASE)"

images: ## Build both container images from source, in docker
	@docker/build.sh

.PHONY: images-from-binary
images-from-binary: release # The same, around the binary that `make release` builds here
	@docker/build.sh --binary "$(RELEASE)"

# What `build` made, linked once more, with its libraries in it: an image FROM scratch holds nothing but the binary. The flag is for the last
# step only, so that nothing is compiled a second time.
.PHONY: static
static: build # Link the debug binary statically, for images that tests build
	@$(CARGO) rustc $(LOCKED) -p balsa --bin balsa -- -C target-feature=+crt-static
	@mkdir -p "$(TARGET_DIR)/static"
	@cp "$(TARGET_DIR)/debug/balsa" "$(TARGET_DIR)/static/balsa.new"
	@mv "$(TARGET_DIR)/static/balsa.new" "$(TARGET_DIR)/static/balsa"

# BALSA_BINARY=FILE tests another binary than this checkout's, KUBERNETES_ARGS="..." goes to k8s/test/run.
TEST_ON_KUBERNETES = BALSA_BINARY="$(or $(BALSA_BINARY),$(TARGET_DIR)/static/balsa)" k8s/test/run $(KUBERNETES_ARGS)
.PHONY: test-kubernetes
test-kubernetes: $(if $(BALSA_BINARY),,static) # Run the tests on a real Kubernetes, which is built and started here
	@$(TEST_ON_KUBERNETES)

clean: ## Remove all that was built; the data of local clusters (.balsa) stays
	@$(CARGO) clean
	@rm -rf target
