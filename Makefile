# Three commands: `make play` and `make demo` show it, `make test` checks it. All install what they need into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
UV := uv==0.13.9
EXTRAS := eval convert serve test

# What `make demo` films: the bundled picture, a sentence, and the keys (key, dash, frames).
PICTURE := relic_jax/assets/demo/room.png
PROMPT := a medium room with striped blue walls, a checked orange floor and a cream ceiling, five pictures on the walls
ACTIONS := w-16,l-48,j-48,d-24,a-23

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export UV_HTTP_TIMEOUT ?= 120

.PHONY: help demo play test test-slow lint format constraints clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.core  ## install, then make out/demo.mp4 and out/demo.png with the shipped tiny model
	@mkdir -p out
	$(PY) -m launch.generate --config=configs/tiny.py --image="$(PICTURE)" --prompt="$(PROMPT)" \
	    --actions="$(ACTIONS)" --seed=0 --out=out/demo.mp4 --sheet=out/demo.png --json=out/demo.json

play: $(VENV)/.serve  ## install, then open the tiny world in a browser (Ctrl-C ends it)
	$(PY) -m launch.serve --config=configs/tiny.py --open

# Each worker of pytest keeps to one core (tests/conftest.py): two multi-threaded ones slow each other down.
test: $(VENV)/.test  ## install the test extras, then run every test that CI runs
	$(PY) -m pytest -n 2 --dist worksteal -rap --durations=15

test-slow: $(VENV)/.test  ## the tests that take minutes
	$(PY) -m pytest -v -m slow

lint: $(VENV)/.test  ## style, types and the direction of imports; `make test` checks them too
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/lint-imports
	$(PY) -m pyright --pythonpath $(PY)

format: $(VENV)/.test  ## put imports in order and format the code
	$(PY) -m ruff check --select I --fix .
	$(PY) -m ruff format .

constraints: $(VENV)/.core  ## renew constraints.txt with the newest versions that fit together
	@{ head -1 constraints.txt; $(PY) -m uv pip compile pyproject.toml --universal --python-version 3.12 \
	    $(addprefix --extra ,$(EXTRAS)) --no-header --no-annotate --quiet; } > .constraints.tmp
	@mv .constraints.tmp constraints.txt

clean:  ## remove .venv, out and caches
	rm -rf $(VENV) out build .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv installs several times faster; pip does the same work where uv can't be had or can't reach the index.
define install
	@echo "installing $(1) into $(VENV) ($(2)) ..."
	@$(PY) -m pip install --quiet "$(UV)" || echo "note: uv can't be installed; pip does it, more slowly"
	@$(PY) -m uv pip install --quiet --python $(PY) --constraint constraints.txt --editable "$(1)" \
	    || { echo "note: installing with pip"; $(PY) -m pip install --quiet --constraint constraints.txt --editable "$(1)"; }
	@touch $@
endef

$(VENV)/.core: pyproject.toml constraints.txt | $(PY)
	$(call install,.,under a minute)

$(VENV)/.serve: pyproject.toml constraints.txt | $(PY)
	$(call install,.[serve],under a minute)
	@touch $(VENV)/.core

$(VENV)/.test: pyproject.toml constraints.txt | $(PY)
	$(call install,.[test],PyTorch brings several GB: minutes)
	@touch $(VENV)/.core $(VENV)/.serve

$(PY):
	@found=; \
	for python in $(PYTHON) python3.12 python3.13 python3 python3.14 python; do \
	    "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null || continue; \
	    found="$$python"; \
	    "$$python" -m venv $(VENV) > /dev/null 2>&1 && break; \
	    rm -rf $(VENV); \
	done; \
	if [ -x $(PY) ]; then echo "made $(VENV) with $$($(PY) --version)"; \
	elif [ -n "$$found" ]; then \
	    echo "error: $$found has no venv module; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; \
	else \
	    echo "error: no Python 3.12 or newer was found; install one or say where: make PYTHON=/path/to/python3.12" >&2; exit 2; \
	fi
