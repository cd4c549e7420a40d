# Two commands do everything: `make demo` and `make test`. Both set up .venv by themselves.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
# make demo DEMO_SECONDS=20 ends by itself; SCAN=file.h5 replays a DXfile
DEMO_SECONDS ?=
SCAN ?=
DEMO_PNG ?= demo_slices.png
# pytest workers; 0: one after another, in one process
TEST_WORKERS ?= 2

.PHONY: demo test lint clean help

help:
	@echo "make demo                    run the IOC on a simulated scan until Ctrl-C"
	@echo "make demo DEMO_SECONDS=20    the same for 20 seconds"
	@echo "make demo SCAN=file.h5       replay a DXfile"
	@echo "make test                    ruff, pyright, import-linter and pytest"

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# what is imported gets compiled then, and kept: all of torch takes a minute that nobody needs
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
	--constraint constraints.txt --editable

$(VENV)/.installed-run: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) .
	@touch $@

$(VENV)/.installed-test: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) '.[test]'
	@touch $(VENV)/.installed-run $@

demo: $(VENV)/.installed-run
	@$(BIN)/python -m tomostream_ioc --simulate $(SCAN) --interfaces 127.0.0.1 \
		--png $(DEMO_PNG) $(if $(DEMO_SECONDS),--seconds $(DEMO_SECONDS))

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# pytest last: its closing line is the result. Two workers: most tests wait for processes.
test: lint
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .import_linter_cache
