# Two commands: `make demo` and `make test`. Each makes the environment (.venv) from a lock file when it is missing.
# PYTEST_FLAGS: a file's tests stay on one worker, so that what they share is made and compiled once and not once per worker.
# PYTHON=... picks the interpreter (3.11 or 3.12; the landmark model has wheels for no other); DEMO_FLAGS=... adds flags.

VENV := .venv
BIN := $(VENV)/bin
DEMO_FLAGS ?=
SLOW_FLAGS ?= -n 2 --dist loadfile --durations=30
PYTEST_FLAGS ?= -n 2 --dist loadfile
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
  $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' 2>/dev/null && { command -v $$p; break; }; done)

.PHONY: demo test slow lint env clean lock
.DEFAULT_GOAL := help

help:
	@echo "make demo   install, then turn the bundled clip into an avatar: runs/demo/report.html"
	@echo "make test   install, then run the fast tests"
	@echo "make slow   install, then run the slow tests"
	@echo "make lint   ruff and a type check"

demo: $(VENV)/.run
	$(BIN)/python run.py demo $(DEMO_FLAGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest tests $(PYTEST_FLAGS)

slow: $(VENV)/.dev
	$(BIN)/python -m pytest tests --slow -m slow $(SLOW_FLAGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check silky_jax kernels configs experiments tests run.py
	$(BIN)/basedpyright

env: $(VENV)/.run

$(VENV)/.run: requirements/run.lock pyproject.toml
	@$(MAKE) --no-print-directory _install LOCK=run
	@$(BIN)/python -m silky_kernels
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml
	@$(MAKE) --no-print-directory _install LOCK=dev
	@$(BIN)/python -m silky_kernels
	@touch $@ $(VENV)/.run

.PHONY: _install
_install:
	@test -n "$(PYTHON)" || { echo "silky_jax needs Python 3.11 or 3.12; none was found. Install one, or say: make demo PYTHON=/path/to/python3.11"; exit 2; }
	@echo "Installing into $(VENV) with $(PYTHON) (once)"
	@if command -v uv >/dev/null 2>&1 && uv --version >/dev/null 2>&1; then \
	  { test -x $(BIN)/python || uv venv -q --python $(PYTHON) $(VENV); } && \
	  uv pip install -q --python $(BIN)/python --require-hashes -r requirements/$(LOCK).lock && \
	  uv pip install -q --python $(BIN)/python --no-deps -e .; \
	else \
	  { test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); } && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/$(LOCK).lock && \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --no-deps -e .; \
	fi

# Needs uv. Hashes, no addresses; one file serves Python 3.11 and 3.12 on every platform.
lock:
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --extra track pyproject.toml -o requirements/run.lock
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --extra track --extra dev -c requirements/run.lock pyproject.toml -o requirements/dev.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
