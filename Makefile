# What a learner needs: `make lab`. What an author needs: `make test`, `make notebooks`. Everything else: `make help`.
# The rules that make or use .venv call install.py, which is back at once when there is nothing to do.

PYTHON ?= python3
BIN := .venv/bin
CHOSEN := $(if $(filter undefined default file,$(origin PYTHON)),,yes)

.PHONY: help lab app class setup fetch test notebooks zoo lint types imports bench fuzz monkey lock clean
.DEFAULT_GOAL := help

help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

lab: setup  ## set up, fetch the digits, open JupyterLab at the first lesson
	@$(BIN)/compresskit lab

app: setup  ## the workbench as a page of its own (MODEL=... DATA=... HOST=... for others than the defaults)
	@$(BIN)/compresskit app $(MODEL) $(if $(DATA),--data "$(DATA)") $(if $(HOST),--host "$(HOST)")

# PYTHON=python3.12 given by a person decides; else the Python that .venv is made of already, which also starts fastest.
setup:  ## make .venv, or bring it up to date (PYTHON=python3.12 chooses the Python)
	@if [ -n "$(CHOSEN)" ]; then $(PYTHON) install.py --this-python; \
	elif $(BIN)/python -I -c "" 2>/dev/null; then $(BIN)/python -I install.py; \
	elif command -v $(PYTHON) >/dev/null; then $(PYTHON) install.py; \
	else echo "compresskit: there is no $(PYTHON) here; install Python 3.11, 3.12 or 3.13, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; fi

fetch: setup  ## fetch the digits
	@$(BIN)/compresskit fetch

class: setup  ## put all that a class without a network needs into this folder: data/mnist and wheels (0.9 GB)
	@$(BIN)/compresskit fetch --into data/mnist
	@$(PYTHON) -m pip download --quiet --require-hashes --only-binary :all: --requirement requirements.lock --dest wheels
	@echo "Copy this whole folder. Then, without a network:  PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels make lab"

test: setup  ## every test there is
	@$(BIN)/python -m tests.everything

notebooks: setup  ## build the notebooks from the lessons, and run them
	@$(BIN)/compresskit build

zoo: setup  ## train the shipped models again
	@$(BIN)/python -m compresskit.training.zoo

lint: setup  ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup  ## mypy
	@$(BIN)/mypy

imports: setup  ## import rules
	@$(BIN)/lint-imports

bench: setup  ## measure, print a table, write build/bench.json
	@$(BIN)/python -m tests.benchmarks

fuzz: setup  ## the long form of the tests with random files and recipes, and of a cell run again
	@COMPRESSKIT_FUZZ=1000 $(BIN)/python -m pytest tests/unit -k "corrupt or fuzz or damaged or random_recipes or rerun" -n 2

monkey: setup  ## ten minutes of random clicking and typing in the workbench (SEED=7 SECONDS=600; REPLAY=build/hands-7.jsonl does a broken run again)
	@COMPRESSKIT_HANDS_SECONDS=$(or $(SECONDS),600) COMPRESSKIT_HANDS_SEED=$(or $(SEED),7) COMPRESSKIT_HANDS_REPLAY="$(REPLAY)" \
		$(BIN)/python -m pytest tests/browser/test_rough_hands.py -q -rP -k random_hands

# backports-strenum 1.3.1 says that it is for Python below 3.11 only: pip refuses it then, and uv does not look.
CONSTRAINT := backports-strenum<1.3

# Versions stay as they are unless UPGRADE=--upgrade is given.
lock: setup  ## resolve requirements.lock and environment.yml anew (UPGRADE=--upgrade for newer versions)
	@echo '$(CONSTRAINT)' | $(BIN)/uv pip compile --constraint - --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
		--python-version 3.11 --all-extras $(UPGRADE) pyproject.toml --output-file requirements.lock
	@{ sed '/^  - pip:/q' environment.yml; \
		sed -n -e '/^[a-z]/ s/^\(.*[^ ]\) *\\$$/      - \1/p' requirements.lock; \
		echo "      - -e ."; } > environment.yml.part && mv environment.yml.part environment.yml

clean:  ## delete .venv and everything that can be made again (not the digits)
	rm -rf .venv .venv.lock build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
