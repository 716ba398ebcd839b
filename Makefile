# make quickstart | test | test-fast | lint | check | format | docs | mutants; PYTHON chooses the interpreter (3.11 or newer)
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# A process a core, a file a process: what a file prepares once is prepared once.
PYTEST = $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: quickstart test test-fast lint check format docs mutants
.DEFAULT_GOAL := quickstart

quickstart: $(VENV)/.installed
	$(BIN)/python -m ssl_transfer run recipes/digits/transfer.yaml

test: $(VENV)/.installed-dev
	$(PYTEST)

test-fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pages as a site, in site/; a link that leads nowhere stops it.
docs: $(BIN)/mkdocs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# All, or those of MUTANTS='ssl_transfer.training.*'. What was tested is remembered in mutants/ until its code or tests
# change. It fails where one survives that tests/mutants.txt does not explain. Each mutant is tested in a fork, which the
# threads of torch's parallel loops would not survive.
mutants: $(BIN)/mutmut
	@[ ! -d mutants/ssl_transfer ] || find mutants/ssl_transfer -type f ! -name '*.py*' -delete  # copied once, and never again
	PATH="$(abspath $(BIN)):$$PATH" OMP_THREAD_LIMIT=1 $(BIN)/mutmut run $(MUTANTS)
	@$(BIN)/python tests/mutants.py
	@echo "one in full: $(BIN)/mutmut show NAME; all of them: $(BIN)/mutmut browse"

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.installed

$(BIN)/mkdocs: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@ $(VENV)/.installed

$(BIN)/mutmut: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[mutants]'
	touch $@ $(VENV)/.installed $(VENV)/.installed-dev
