# Commands that always work on a bare machine with Python 3.11+, make and git:
#   make demo          set up .venv, then train, watch, measure, register, deploy and ask
#   make azure-demo    the same on a small Azure on this machine, by the real Azure packages; needs a dataset: DATA=PATH
#   make test          set up .venv, then every test
#   make matrix        every scenario by every technique, a test a cell (docs/matrix.md)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Extra words for pip, such as an index of CPU builds of PyTorch (see README, "Install").
PIP_ARGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)

.PHONY: setup setup-azure setup-dev demo demo-banking77 azure-demo test test-fast lint format docs record bench clean
.PHONY: matrix
.DELETE_ON_ERROR:

setup: $(VENV)/.local-installed
setup-azure: $(VENV)/.azure-installed
setup-dev: $(VENV)/.dev-installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV)

# PyTorch first and by its pinned version, so that a CPU build that is at hand is taken before anything asks for another.
$(VENV)/.local-installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (once; a minute or more)..."
	@$(PIP) torch
	@$(PIP) -e '.[local]'
	@$(BIN)/python -m compileall -q maas_client jobs models
	@touch $@

$(VENV)/.azure-installed: $(VENV)/.local-installed
	@$(PIP) -e '.[local,azure,simulator]'
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.local-installed
	@$(PIP) -e '.[local,quantized,deepspeed,tracking,azure,simulator,dev,bench]'
	@touch $@

demo: setup
	$(BIN)/maas run jobs/examples/card-support.yaml
	$(BIN)/maas chat card-support -m "My new card has not come yet. When will it be here?"

demo-banking77: setup
	$(BIN)/maas run jobs/examples/banking77.yaml

# banking77 through `backend: azureml`, from submit to an answer of its endpoint. DATA is its train.csv.
DATA ?= ../shared/data/banking77/train.csv
azure-demo: setup-azure
	$(BIN)/python demo/azure.py --data "$(DATA)"

test: setup-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow

test-fast: setup-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile

# docs/matrix.md shows the same cells trained for real; .venv/bin/python bench/matrix.py writes it.
matrix: setup-dev
	$(BIN)/python -m pytest tests/jobs/test_matrix.py -m slow -k matrix

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=jobs $(BIN)/lint-imports --no-cache

format: setup-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup-dev
	$(BIN)/python docs/make_docs.py
	$(BIN)/python docs/pictures/dashboard.py

# The recordings of tests/recordings: `make record` from the simulator, `make record LIVE=1` from the Azure of .env
# (docs/recordings.md; that bills). RECORD names the journeys, all without it.
record: setup-dev
	$(BIN)/python -m tests.recordings.record $(if $(LIVE),--live) $(RECORD)

bench: setup-dev
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/data_check.py
	$(BIN)/python bench/training_throughput.py
	$(BIN)/python bench/length_mix.py
	$(BIN)/python bench/start_time.py
	$(BIN)/python bench/memory_model.py
	$(BIN)/python bench/zero_memory.py
	$(BIN)/python bench/submit_roundtrips.py
	$(BIN)/python bench/transfer.py
	$(BIN)/python bench/watch_many.py
	$(BIN)/python bench/long_watch.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
