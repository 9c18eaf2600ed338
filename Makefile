# Two commands need nothing else done before: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-slow bench drills experiments lint clean
help:                      ## list the commands
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 12

.venv/.runs: pyproject.toml constraints.txt
	@echo "installing into .venv (the packages unpack to about 6 GB; two to five minutes)"
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"lungdet needs Python 3.11 or newer, this is {sys.version}"'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) -e . && touch $@

.venv/.tests: .venv/.runs
	@$(PIP) -e '.[test]' && touch $@

.venv/.peers: .venv/.tests
	@$(PIP) -e '.[test,bench]' && touch $@

demo: .venv/.runs          ## phantoms -> both models -> outputs/demo/report
	@rm -rf outputs/demo
	@$(BIN)/python train.py experiment=demo
	@$(BIN)/python evaluate.py runs=outputs/demo

# A file's tests in one process, so that what they share is made once.
BY_FILE := -n auto --dist loadfile
test: .venv/.tests         ## the tests that take seconds
	@$(BIN)/python -m pytest $(BY_FILE)

test-slow: .venv/.tests    ## the tests that take minutes
	@$(BIN)/python -m pytest -m slow $(BY_FILE)

bench: .venv/.peers        ## measure the claims, beside peers; needs LUNGDET_DATA; writes benchmarks.json
	@$(BIN)/python -m tests.benchmarks

drills: .venv/.tests       ## simulate what the statistics promise; writes drills.json
	@$(BIN)/python -m tests.drills

SMALL := data=phantom data.difficulty=0 data.image_size=64 data.batch_size=16 augment=none model.dropout=0.2 \
	trainer.max_epochs=20 trainer.early_stopping=null logger=csv
experiments: .venv/.runs   ## every experiment on phantoms, with its report; several hours on two cores
	@for one in cross_dataset learning_curve imbalance robustness controls; do \
		$(BIN)/python train.py experiment=$$one $(SMALL) || exit 1; done
	@for signal in order findings none; do \
		$(BIN)/python train.py experiment=temporal data.signal=$$signal logger=csv || exit 1; done

lint: .venv/.tests         ## ruff
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

clean:                     ## delete the virtual environment and everything made by runs
	rm -rf .venv outputs benchmarks.json drills.json
