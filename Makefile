# Sets up .venv and calls the tools; what they do is in pyproject.toml and noxfile.py.
PYTHON ?= python3
FLOOR := $(shell sed -n 's/^python_requires *= *>=//p' setup.cfg)
RUN := $(CURDIR)/.venv/bin
# How many tests run at a time. Not one for each processor seen: a container may see many and get few.
WORKERS ?= 2
export WORKERS

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo serve test check test-faults test-faults-all clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-16s %s\n", $$1, $$2}' Makefile

demo: .venv/test.stamp  ## run the main job over real ComfyUI output, for a person to see
	@$(RUN)/python demo/run.py

serve: .venv/test.stamp  ## the same, and keep the app running
	@$(RUN)/python demo/run.py --serve

test: .venv/test.stamp  ## run the tests; needs no root
	$(RUN)/python -m pytest -n $(WORKERS) --dist worksteal

check: .venv/dev.stamp  ## lint, types, and the tests with the lowest allowed dependencies
	$(RUN)/nox -s lint types tests_min

test-faults: .venv/test.stamp  ## run the tests that need root, strace, mounts or other programs
	PYTHON=$(RUN)/python sh tests/faults/run.sh

test-faults-all: .venv/test.stamp  ## the same, with a power cut before every call and damage at every byte
	EVERY_POINT=1 $(RUN)/python -m pytest -n $(WORKERS) --dist worksteal \
	    tests/properties/test_damage.py tests/properties/test_torn_tail.py
	EVERY_POINT=1 PYTHON=$(RUN)/python sh tests/faults/run.sh

clean:  ## remove everything that was built or cached
	rm -rf .venv .nox .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
	    .coverage build dist *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(map(int, "$(FLOOR)".split("."))))' 2>/dev/null || \
	    { echo 'Python $(FLOOR) or later is needed; "$(PYTHON)" is not. Say: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	    { echo '"$(PYTHON)" has no venv module. On Debian: apt install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/%.stamp: setup.cfg pyproject.toml | .venv/bin/python
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all,$*]'
	@touch $@ .venv/test.stamp  # dev includes test
