# The whole project's buttons. Needs make and a Python >= 3.11; no compiler, no root.
#
#   make serve [ROOT=./data] [BIND=127.0.0.1:5000] [WORKERS=N] [CONFIG=FILE] [MODE=open|auth|token]
#   make test  [T='tests/wire -k ranges']       every test, or those that T names
#   make check                                  format, lint, types, who imports whom
#   make bench [B='pull push']                  the short set of benchmarks, or those; ours alone
#   make bench-compare [B='pull push']          the whole set, the peers beside us in turns: see docs/benchmarks.md
#   make bench-report                           the figures of docs/benchmarks.md from the newest results
#   make conformance                            the OCI's own program against this server
#   make soak  [MINUTES=10]                     the engine's promises under power cuts, at random, for that long
#   make crash [ROUNDS=500] [SERVERS=50] [SEED=1]   the crash campaign: so many rounds of the engine, and of servers
#   make rot [FLIPS=50] [SEED=1]                flipped bits, so many in every class of bytes
#   make venv | lock | format | docs | clean
#
# Stamps in .venv remember what was installed: a second make does nothing until a lock file changes.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
# Every file that is installed was hashed when the lock was made, and none of them is built here.
LOCKED := --require-hashes --only-binary :all:
RUNTIME := $(VENV)/.runtime-stamp
DEV := $(VENV)/.dev-stamp
# Bytecode, also where interpreters are told to write none (PYTHONDONTWRITEBYTECODE): without it a start takes twice as long.
COMPILED := $(VENV)/.compiled-stamp
CLIENTS := @$(BIN)/python -m tests.support.peers

# PYTHON=... overrides the search, and must be what .venv was made with if there is one.
PYTHON ?=
PYTHONS := python3 python3.13 python3.12 python3.11 python3.14 python
SEARCHED = $(if $(PYTHON),$(PYTHON),$(PYTHONS))

.PHONY: help venv same-python serve test conformance soak crash rot check format docs bench bench-compare bench-report lock clean

help:
	@sed -n 's/^#\( \{1,\}make .*\)/\1/p' Makefile

venv: $(COMPILED)

$(BIN)/python:
	@found=; \
	for candidate in $(SEARCHED); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
	    found=$$candidate; break; \
	  fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo "make: no Python >= 3.11 found (looked for: $(SEARCHED)). Install one, or name it: make PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if "$$found" -m venv $(VENV) >/dev/null 2>&1; then exit 0; fi; \
	rm -rf $(VENV); \
	if "$$found" -m venv --without-pip $(VENV) >/dev/null 2>&1 \
	  && "$$found" -m pip --python $(BIN)/python install --quiet pip >/dev/null 2>&1; then exit 0; fi; \
	rm -rf $(VENV); \
	echo "make: $$found cannot make a virtual environment: it lacks the modules venv, ensurepip and pip." >&2; \
	echo "make: on Debian or Ubuntu install the package python3-venv; or name another Python: make PYTHON=/path/to/python3" >&2; \
	exit 1

BASE = -c 'import os, sys; print(os.path.realpath(sys._base_executable))'

same-python: | $(BIN)/python
	@test -z "$(PYTHON)" && exit 0; \
	asked=$$("$(PYTHON)" $(BASE)) && has=$$($(BIN)/python $(BASE)) || exit 1; \
	test "$$asked" = "$$has" && exit 0; \
	echo "make: $(VENV) was made with $$has, not with $$asked: rm -r $(VENV) first, or leave PYTHON out" >&2; \
	exit 1

# Told on stderr: the only line on stdout of `make serve` is the server's.
$(RUNTIME): requirements.lock pyproject.toml | $(BIN)/python same-python
	@echo "make: installing requirements.lock into $(VENV)" >&2
	@$(PIP_INSTALL) $(LOCKED) -r requirements.lock
	@$(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

$(COMPILED): $(RUNTIME) $(wildcard cas/*.py api/*.py api/*/*.py tools/*.py)
	@$(BIN)/python -m compileall -q cas api tools
	@touch $@

$(DEV): requirements-dev.lock $(RUNTIME) | $(COMPILED)
	@echo "make: installing requirements-dev.lock into $(VENV)" >&2
	@$(PIP_INSTALL) $(LOCKED) -r requirements-dev.lock
	@touch $@

# Only what was asked for becomes a flag, so that CAS_* and the configuration file keep their say.
serve: $(COMPILED)
	@exec $(BIN)/cas serve $(if $(ROOT),--root "$(ROOT)") $(if $(BIND),--bind "$(BIND)") \
	  $(if $(WORKERS),--workers "$(WORKERS)") $(if $(CONFIG),--config "$(CONFIG)") \
	  $(if $(MODE),--mode "$(MODE)")

# Tests run real clients: what is missing of them is brought first, where this machine lets us. They are shared out
# by worksteal because pytest-xdist 3.8 hangs for good under loadscope and loadgroup once a worker has died (its #1323).
test: $(DEV)
	$(if $(T),$(if $(findstring clients,$(T)),$(CLIENTS)),$(CLIENTS))
	$(BIN)/python -m pytest $(if $(T),$(T),-n 2 --dist worksteal -m "not nightly")

conformance: $(DEV)
	@$(BIN)/python -m tests.clients.conformance

soak: $(DEV)
	$(BIN)/python -m tests.crash.soak $(or $(MINUTES),10)

crash: $(DEV)
	@$(BIN)/python -m tests.crash.campaign $(or $(ROUNDS),500) $(or $(SERVERS),50) $(or $(SEED),1)

rot: $(DEV)
	$(BIN)/python -m tests.crash.rot $(or $(FLIPS),50) $(or $(SEED),1)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV)
	$(BIN)/python -m tests.meta.tables
	$(BIN)/python -m tests.clients.matrix

bench: $(DEV)
	$(if $(B),,$(BIN)/python -m pytest bench --benchmark-only --benchmark-columns=min,median,max,ops)
	$(BIN)/python -m bench --scale short $(B)

bench-compare: $(DEV)
	$(BIN)/python -m bench.peers
	$(BIN)/python -m bench --scale full --peers $(B)

bench-report: $(DEV)
	$(BIN)/python -m bench.report

# Made with the oldest Python we support, because its needs include those of the newer ones.
# Which server the packages come from is the machine's business, so no address is written down.
PIP_COMPILE = CUSTOM_COMPILE_COMMAND="make lock" .lock-venv/bin/pip-compile --quiet $(if $(UPGRADE),--upgrade) \
  --generate-hashes --strip-extras --allow-unsafe --all-build-deps \
  --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

lock:
	python3.11 -m venv .lock-venv
	.lock-venv/bin/python -m pip --disable-pip-version-check install --quiet pip-tools==7.6.2
	$(PIP_COMPILE) --output-file requirements.lock pyproject.toml
	$(PIP_COMPILE) --all-extras --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml

clean:
	rm -rf $(VENV) .lock-venv .clients build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
