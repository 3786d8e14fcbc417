# Everything runs in .venv, which is made when it is missing and brought up to date when pyproject.toml changes.
#
#   make demo             a sample server, the tap and sample clients, to look around  (ARGS=--once: one round)
#   make test             the quick tests                                              (ARGS="-k redact" and the like)
#   make test-all         every test, with the whole matrix of official SDKs
#   make test-compiled    the tests of the recorder against a compiled core
#   make conformance      the official conformance suite, directly and through the tap
#   make transparency     all that shows that traffic is unchanged, written to docs/transparency.md
#   make faults           links, servers, disks and processes that fail under load, counted at both ends
#   make soak             mixed traffic and random faults for half an hour             (MINUTES=5; ARGS="--seed 1 --rate 100")
#   make lint types       what has to be clean before a commit
#   make audit            known vulnerabilities of what is installed                   (ARGS=--must: none asked is a failure)
#   make fuzz             a million strange conversations                              (ARGS="--inputs N --seed S")
#   make browser          installs what the tests in a browser need, where the system lets it
#   make screenshots      the pages as pictures, two of them in docs/images
#   make bench            what the tap costs beside other proxies: docs/performance.md (ARGS=--quick, ARGS="--only json")
#   make bench-desk       how long the pages take on a month of a million lines        (ARGS="--only tools")
#   make bench-growth     how cost grows, up to ten million lines                      (ARGS="--events 200000")
#   make bench-beside     what an open page costs the traffic

.DEFAULT_GOAL := test
.PHONY: setup demo test test-all test-compiled fuzz conformance transparency faults soak lint types audit bench bench-desk bench-growth bench-beside sdk browser screenshots clean
.SILENT:

# The first Python that is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$python; break; }; done)

BIN := .venv/bin

# `pip install --group` (PEP 735) came with 25.1.
$(BIN)/.pip:
	test -n "$(PYTHON)" || { echo "mcp-tap needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	touch $@

$(BIN)/.installed: $(BIN)/.pip pyproject.toml
	echo "installing into .venv"
	MCP_TAP_PURE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(BIN)/.developing: $(BIN)/.installed
	echo "installing what tests and checks need"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group tests --group lint
	# where there is no playwright for this system, the tests in a browser are skipped
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --group browser
	touch $@

setup: $(BIN)/.developing

demo: $(BIN)/.installed
	$(BIN)/mcp-tap demo $(ARGS)

# The tests wait for servers and browsers more than they compute: three of them for every two cores.
WORKERS := $(shell $(PYTHON) -c 'import os; print(min(8, (os.cpu_count() or 1) * 3 // 2 or 1))' 2>/dev/null)

# Without a network the SDKs cannot be fetched: their tests are skipped then, and say so.
test: setup browser
	-$(BIN)/python tests/sdk/environments.py
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not matrix" $(ARGS)

test-all: setup sdk browser
	$(BIN)/pytest -n auto -m "not (links and matrix)" $(ARGS)

# What goes through the core, against a wheel as `pip install .` makes it.
test-compiled: setup
	$(BIN)/python -m tests.compiled $(ARGS)

# Needs node and npm; the suite and the Node that it wants go into .cache.
conformance: setup sdk
	$(BIN)/python -m tests.conformance

transparency: conformance
	$(BIN)/python -m tests.transparency

# Real clients over links that misbehave; processes killed fifty times; stores that are full, locked, slow, deleted.
faults: setup sdk
	$(BIN)/pytest -n 2 tests/faults $(ARGS)

# Without the SDKs their clients are left out.
soak: setup
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(ARGS)

fuzz: setup
	$(BIN)/python -m tests.fuzz $(ARGS)

lint: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: setup
	$(BIN)/mypy

# Without a network there is nothing to install it from, and nothing to ask: a skip that says so.
audit: setup
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --group audit
	$(BIN)/python -m tests.audit $(ARGS)

bench: setup sdk
	$(BIN)/python -m benchmarks $(ARGS)

bench-desk: setup
	$(BIN)/python -m benchmarks.desk $(ARGS)

bench-growth: setup
	$(BIN)/python -m benchmarks.growth $(ARGS)
	$(BIN)/python -m benchmarks --page

bench-beside: setup
	$(BIN)/python -m benchmarks.beside $(ARGS)

# The official MCP SDKs, each in an environment of its own.
sdk: setup
	$(BIN)/python tests/sdk/environments.py

# Chromium through the system's package manager, axe-core through npm.
browser: setup
	-$(BIN)/python tests/browser/environment.py

# The demo and a tool that changes, shown in a browser: docs/images and .cache/screenshots.
screenshots: setup browser
	$(BIN)/python -m tests.browser.screenshots $(ARGS)

clean:
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
