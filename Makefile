# Everything a developer or CI runs. `make help` lists the targets.

.PHONY: help build test verify fix tools single-node multi-node fault fault-stories crash-sweep clean
MINUTES ?= 10
SEED ?=
ROUNDS ?= 3
ONLY ?=
PART ?=
CARGO ?= cargo

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 14

build: ## the release binary, target/release/rusd
	$(CARGO) build --release --bin rusd

test: tools ## all Rust tests but the longest fault stories
	$(CARGO) test --workspace --no-fail-fast

fault-stories: ## each kind of fault, and one story per fault, on real processes: about three minutes
	$(CARGO) test --test linearizability fault:: -- --include-ignored

verify: ## format, lints, docs, workflow
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	@if ls .github/workflows/*.yml >/dev/null 2>&1; then tools/build.sh actionlint && tools/bin/actionlint; fi

fix: ## format, and apply what clippy can fix
	$(CARGO) fmt --all
	$(CARGO) clippy --workspace --all-targets --fix --allow-dirty --allow-staged

tools: ## the real etcd tools, built into tools/bin
	tools/build.sh

single-node: ## a newcomer's first minutes with one member, on the default ports
	tools/build.sh etcdctl
	scripts/single-node-test.sh

multi-node: ## the validation plan T1..T14 on real processes
	tools/build.sh etcdctl grpcurl
	scripts/multi-node-test.sh

.PHONY: operations
operations: ## every block of commands in docs/operations.md, in order
	tools/build.sh etcdctl
	scripts/operations-test.sh

.PHONY: k8s
k8s: ## a real Kubernetes apiserver on 1 and 3 members, which are killed under writes; the first build takes minutes
	scripts/k8s-test.sh

fault: ## random faults for MINUTES, every answer judged; SEED repeats a run
	FAULT_MINUTES=$(MINUTES) FAULT_SEED=$(SEED) $(CARGO) test --test linearizability -- --ignored --exact --nocapture mixture::a_long_mixture

.PHONY: bench bench-quick bench-smoke bench-micro bench-list
# What of `make bench` took part names itself in the report.
bench_command = make $@$(if $(ONLY), ONLY=$(ONLY))$(if $(filter-out 3,$(ROUNDS)), ROUNDS=$(ROUNDS))
bench_tools = tools/build.sh etcd benchmark bench

bench: build ## etcd and rusd side by side, into docs/benchmarks.*: ONLY=put,range ROUNDS=3
	$(bench_tools)
	tools/bin/bench -rounds $(ROUNDS) -only "$(ONLY)" -out docs -command "$(bench_command)"

bench-quick: build ## the main workloads in less than three minutes; prints only
	$(bench_tools)
	tools/bin/bench -quick -command "$(bench_command)"

bench-smoke: ## proves in seconds that the bench works, on a debug build; its tests, too
	$(CARGO) build --bin rusd
	$(bench_tools)
	cd tools/bench && go vet ./... && go test ./...
	tools/bin/bench -smoke -rusd target/debug/rusd

bench-micro: build ## criterion micro-benches of the storage, into docs/benchmarks.*
	$(CARGO) bench --bench storage
	$(bench_tools)
	tools/bin/bench -micro target/criterion -out docs -command "$(bench_command)"

bench-list: ## what ONLY can name
	tools/build.sh bench
	tools/bin/bench -list

crash-sweep: ## every crash point, flipped bit and spoiled sector of small stores: hours; PART=3/20 does a part
	RUSD_SWEEP=full RUSD_PART=$(PART) $(if $(SEED),RUSD_SEED=$(SEED)) $(CARGO) test --release -p rusd-storage --test crash_sweep -- --nocapture --test-threads=1

clean: ## remove what was built
	$(CARGO) clean
	rm -rf tools/bin
