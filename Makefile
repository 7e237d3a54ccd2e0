# Every target sets up what it needs; the set-up is done once and again whenever its inputs change.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.DEFAULT_GOAL := help
.PHONY: help setup demo test slow check format clean

help:  ## this help
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## */  make \1\t/' | expand -t 20

setup: $(STAMP)  ## a virtual environment in .venv with the exact versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=/path/to/python" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo,dev,ray]'
	@touch $@

demo: setup  ## the main job on the embedded encoder and suite, about five minutes on two cores
	$(BIN)/xadapt run configs/demo.yaml

test: setup  ## the tests that take under twenty seconds each
	$(BIN)/python -m pytest -q -m 'not slow'

slow: setup  ## the tests that take longer
	$(BIN)/python -m pytest -q -m slow

check: setup  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/typing && ln -sfn ../../cli build/typing/xadapt_cli && ln -sfn ../../configs build/typing/xadapt_configs
	$(BIN)/mypy

format: setup  ## put the source into the project's layout
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## drop what make made; results in runs/ stay
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache
