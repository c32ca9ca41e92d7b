# Everything that is run here has a name; `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up
# Empty is unset: where bytecode is not kept, each of the thousand processes that the tests start compiles coord anew,
# a third of their CPU time.
export PYTHONDONTWRITEBYTECODE :=
# At once: lint and types are through before the tests come to those where time matters.
ifeq ($(MAKECMDGOALS),check)
MAKEFLAGS += --jobs=3
endif

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

# Tests with real processes wait as much as they work, the others compute: four files at a time keep two cores at work.
# In the order of the names, not of how many tests a file has: those of real processes are the longest, and begin first.
BY_FILES := --dist loadfile --no-loadscope-reorder
test: setup ## run all tests: four files at a time, then those where seconds decide, then those that want the machine alone
	@$(BIN)/python -m pytest -q -n 4 $(BY_FILES) -m "not soak and not paced and not alone"; most=$$?; \
	$(BIN)/python -m pytest -q -n 2 $(BY_FILES) -m "paced and not soak" $$(grep -rl --include='test_*.py' 'mark\.paced' tests); paced=$$?; \
	$(BIN)/python -m pytest -q -m "alone and not soak" $$(grep -rl --include='test_*.py' 'mark\.alone' tests); alone=$$?; \
	exit $$((most | paced | alone))

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
