# Everything a newcomer needs: `make demo` and `make test`. Both install what is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Tests start sparkops hundreds of times: where the environment forbids byte code, each start would compile 300 modules.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/python -m pytest

.PHONY: demo test test-all chaos check fix bench docs picture clean lab-down

demo: $(STAMP)
	$(BIN)/python -m tests.lab.demo

# Files of tests run side by side: those on the lab mostly wait. WORKERS=0 runs them one after another.
WORKERS ?= 5
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The tests of the SSH transport start this program on ports of their own; `sparkops` itself does not need it.
SSHD := /usr/sbin/sshd
# The tests of the HTML report open it in this browser; they are left out where it cannot be had.
CHROMIUM := /usr/bin/chromium

test: $(STAMP) $(SSHD) $(CHROMIUM)
	$(PYTEST) $(SIDE_BY_SIDE) -m "not slow" tests

# The programs of others that read what sparkops writes: 770 MB of Python packages, and Debian's.
ECOSYSTEM := $(VENV)/.ecosystem
PROGRAMS := prometheus ansible-core bash-completion zsh fish mandoc
# Benchmarks of others, with an environment of their own: they bring other versions of what sparkops needs.
BENCHMARKS := aiperf==0.13.0 llama-benchy==0.4.0

test-all: $(ECOSYSTEM) $(SSHD) $(CHROMIUM)
	$(PYTEST) $(SIDE_BY_SIDE) tests

# N faults on one lab node; SEED=… repeats a run.
N ?= 100
chaos: $(STAMP)
	$(BIN)/python -m tests.chaos --more -n $(N) $(if $(SEED),--seed $(SEED))

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q tests/unit/test_imports.py tests/unit/test_docs.py tests/unit/test_portable.py tests/unit/test_dependencies.py
	$(BIN)/python -m tests.audit

fix: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

picture: $(STAMP)
	$(BIN)/python -m tests.lab.picture

docs: $(STAMP)
	$(BIN)/python -m docs.generate

bench: $(STAMP)
	$(BIN)/python -m bench

lab-down: $(STAMP)
	$(BIN)/python -m tests.lab down

# The environment is made anew when the declared dependencies change.
$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "sparkops needs Python 3.10 or later"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh tests/lab/apt.sh python3-venv
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(ECOSYSTEM): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable '.[dev,ecosystem]'
	sh tests/lab/apt.sh $(PROGRAMS) || echo "without $(PROGRAMS): what needs them is not tested"
	$(PYTHON) -m venv $(VENV)/benchmarks && $(VENV)/benchmarks/bin/pip install --quiet $(BENCHMARKS) || echo "without $(BENCHMARKS): what needs them is not tested"
	touch $@

$(SSHD):
	sh tests/lab/apt.sh openssh-server

$(CHROMIUM):
	sh tests/lab/apt.sh chromium fonts-dejavu-core || echo "without Chromium: the HTML report is not tested in a browser"

clean: lab-down
	rm -rf $(VENV) dist build
