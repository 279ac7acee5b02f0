# Every target stands on its own: it sets up what it needs first, and is quick when that is done already.
SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

# The Node.js that `make setup` found or brought comes first.
export PATH := $(CURDIR)/.tools/node/bin:$(CURDIR)/node_modules/.bin:$(PATH)
NODE := node --disable-warning=ExperimentalWarning

.PHONY: help setup setup-tests setup-cluster cluster demo check unit integration e2e e2e-kind test bench bench-scale bundle clean

help: ## Say what each target does
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Bring Node.js 24 or newer and the locked dependencies (into .tools/ and node_modules/)
	@sh scripts/setup.sh

setup-tests: setup ## As root on Debian: install the real parts that integration tests run against
	@sh scripts/setup-tests.sh

setup-cluster: setup-tests ## The API server that tests run against: found, downloaded, or built once from its Go modules (some minutes)
	@$(NODE) test/support/kubernetes/binaries.ts
	@$(NODE) test/support/kubernetes/helm.ts
	@$(NODE) test/support/kubernetes/monitoring.ts

cluster: setup ## A control plane to play with, on loopback, with the kinds installed; Ctrl-C stops it
	@$(NODE) scripts/cluster.ts

demo: setup ## See the main job done on this machine: no root, no Docker, no cluster
	@bin/imageproxy demo

check: setup ## Format, types, lint, unused code, generated files, architecture, docs
	@$(NODE) scripts/check.ts

unit: setup ## Unit tests
	@$(NODE) scripts/test.ts unit

integration: setup-cluster ## Tests against real parts: Keystone, Glance, an API server, qemu-img
	@$(NODE) scripts/test.ts integration

e2e: setup-cluster ## As root: the container image and the chart on a node of our own, which runs pods; no Docker
	@$(NODE) scripts/e2e.ts

e2e-kind: setup-tests ## The same tests on kind, for those who have Docker
	@sh scripts/e2e-kind.sh

test: setup-cluster ## All of it: check, unit, integration and e2e tests; the last line counts
	@$(NODE) scripts/test.ts check unit integration e2e

bench: setup-tests ## Measure URL -> Ready against the usual pipeline and against the floor
	@$(NODE) bench/main.ts

bench-scale: setup-cluster ## Measure ten thousand VMImages on a real API server
	@$(NODE) bench/scale.ts

bundle: setup ## What the npm package and the container image hold: dist/
	@$(NODE) scripts/bundle.ts

clean: ## Remove everything that these targets made
	rm -rf node_modules .tools .cache dist coverage demo-state
