# Everything that is run here has a name; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: help setup demo test check lint types docs soak bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv with coord in it

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "coord needs Python 3.11 or newer on the PATH; name one with make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "this Python cannot make virtual environments (no ensurepip)" >&2; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "installing python3-venv" >&2; apt-get update -qq && apt-get install -y -qq python3-venv; \
		else echo "install it first: sudo apt-get install python3-venv" >&2; exit 1; fi; }
	@$(BIN)/python -c '' 2>/dev/null || { echo "making $(VENV)"; $(PYTHON) -m venv --clear $(VENV); }
	@echo "installing coord and its tools into $(VENV)"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade -c constraints.txt pip
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt --group dev -e .
	@touch $@

demo: setup ## run the tour: a coordinator, three agents, 300 nodes of history, a job that outlives a machine (KEEP=1 leaves it running)
	@$(BIN)/coord demo $(if $(KEEP),--keep)

# Tests with real processes mostly wait, the others compute: beside each other they take half of the time.
test: setup ## run all tests: three at a time, then those that want the machine for themselves
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile -m "not soak and not alone"; most=$$?; \
	$(BIN)/python -m pytest -q -m "alone and not soak"; alone=$$?; exit $$((most | alone))

lint: setup ## style and import directions
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check -q .
	@$(BIN)/lint-imports --no-cache

types: setup ## mypy, strict
	@$(BIN)/mypy

check: lint types test ## what CI runs

soak: setup ## the full figures, in resumable parts (hours)
	@$(BIN)/python -m bench soak

bench: setup ## the figures of docs/performance.md, side by side in one run
	@$(BIN)/python -m bench run

docs: setup ## make docs/reference/{cli,config}.md from the commands and settings
	@$(BIN)/python -m cli.reference docs/reference

clean: ## remove what setup and the tools made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
