# make demo   the main job, on an embedded sample
# make test   all tests
# make check  lint, types, layers
# Each makes .venv and installs what it needs. EXTRA=gpu installs TensorFlow for
# NVIDIA GPUs instead of the CPU build.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
EXTRA ?= cpu
# The two builds of TensorFlow must never meet in one environment.
VENV := .venv$(if $(filter-out cpu,$(EXTRA)),-$(EXTRA))
BIN := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/.demo
	$(BIN)/nucleiseg demo demo

test: $(VENV)/.test
	sh tests/run.sh $(BIN)/python $(PYTEST_ARGUMENTS)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_layers.py

clean:
	rm -rf .venv .venv-gpu demo build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# A stamp a set of extras: the demo need not wait for linters.
$(VENV)/.demo: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA)]'
	touch $@

$(VENV)/.test: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[$(EXTRA),test,dev]'
	touch $@

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or later is needed: make PYTHON=/path/to/python3.11'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	touch $@
