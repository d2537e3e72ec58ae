# On a fresh machine with Python 3.11 or newer: `make demo`, `make test`, `make docs`. All can be repeated.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

.PHONY: help demo test test-fast torture docs clean

help:
	@echo "make demo   install into $(VENV), run the whole method on embedded data (10 to 15 minutes on 2 cores)"
	@echo "make test   install into $(VENV), then lint, types and tests (20 minutes on 2 cores)"
	@echo "make test-fast  the tests that train nothing and start no server or browser (2 minutes on 2 cores)"
	@echo "make torture  the tests marked torture, then kill commands, fill disks, send malformed requests, read hostile files (90 minutes on 2 busy cores)"
	@echo "make docs   install MkDocs into $(VENV), build the site into site/; links and names must resolve"
	@echo "make clean  remove $(VENV); runs, images and models in mlflow.db and mlruns/ stay"

demo: $(VENV)/installed
	@echo "== The whole method on embedded surfaces: MemSeg, diffusion and both, without and with real defects."
	$(BIN)/python -m inandout surfaces --width 64 --height 64 --out data/demo
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/mlflow run . --env-manager local --experiment-name inandout \
		-P data=data/demo -P width=64 -P height=64 -P epochs=5 -P n_aug=40 -P sources=none,memseg,inout-inpaint
	@echo "== Next, your own images: one folder with good/ and defect/, or a CSV manifest"
	@echo "$(BIN)/python -m inandout check --data FOLDER"
	@echo "$(BIN)/python -m inandout main --data FOLDER --sources none,memseg,inout-inpaint --dry-run"

test: $(VENV)/installed $(VENV)/installed-dev
	@echo "== Lint"
	$(BIN)/ruff check .
	@echo "== Types"
	$(BIN)/mypy
	@echo "== Tests"
	$(PYTEST) -m "not torture"

test-fast: $(VENV)/installed $(VENV)/installed-dev
	$(PYTEST) -m "not slow"

$(VENV)/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; name a newer one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "== Installing into $(VENV) (several minutes the first time: PyTorch is large)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps -e .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	$(BIN)/pip install --quiet -r requirements-dev.lock
	@touch $@

torture: $(VENV)/installed $(VENV)/installed-dev
	$(PYTEST) -m torture
	$(BIN)/python -m benchmarks.torture

docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/pip install --quiet -e ".[docs]"
	@touch $@

clean:
	rm -rf $(VENV)
