# Two commands need nothing else done before: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-slow bench lint clean
help:        ## list the commands
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/.runs: pyproject.toml constraints.txt
	@echo "installing into .venv (the packages unpack to about 6 GB; two to five minutes)"
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"lungdet needs Python 3.11 or newer, this is {sys.version}"'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) -e . && touch $@

.venv/.tests: .venv/.runs
	@$(PIP) -e '.[test]' && touch $@
