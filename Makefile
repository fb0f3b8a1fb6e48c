# Needs make and a Python from 3.10 on; everything else goes into $(VENV).
# No GPU? PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu spares PyTorch's CUDA libraries.

FRAMEWORK ?= torch
VENV ?= .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/installed
TYPES := build/types

export OMP_NUM_THREADS ?= 1
# Ranks need not compile the package each for itself.
export PYTHONDONTWRITEBYTECODE :=
# Containers run as root, which Open MPI refuses by default; for everybody else these mean nothing.
export OMPI_ALLOW_RUN_AS_ROOT := 1
export OMPI_ALLOW_RUN_AS_ROOT_CONFIRM := 1

.PHONY: help demo test test-slow bench bench-scale bench-convergence lint format types docs clean distclean
.DELETE_ON_ERROR:

help:
	@echo "make demo [FRAMEWORK=torch|tensorflow]  train with a straggler: allreduce beside gossip"
	@echo "make test, make test-slow    the tests; those that take long"
	@echo "make bench [FRAMEWORK=...]   the benchmarks, into benchmarks/results/"
	@echo "make bench-scale             what the simulator predicts for 16 to 4,096 workers, likewise"
	@echo "make bench-convergence       what algorithms and layers learn, into benchmarks/results/"
	@echo "make lint, make format       ruff and mypy; let ruff correct what it can"
	@echo "make docs                    write docs/settings.md"
	@echo "make clean, make distclean   remove what was built; the virtual environment too"

demo: $(INSTALLED)-$(FRAMEWORK)
	$(PY) examples/demo.py --framework $(FRAMEWORK)

# Three processes for two cores, since launches often wait; what runs beside what: tests/schedule.py.
test: $(INSTALLED)-torch $(INSTALLED)-tensorflow-cpu
	$(PY) -m pytest -n 3

test-slow: $(INSTALLED)-torch $(INSTALLED)-tensorflow-cpu
	$(PY) -m pytest -m slow

bench: $(INSTALLED)-torch $(INSTALLED)-$(FRAMEWORK)
	$(PY) -m benchmarks.run --framework $(FRAMEWORK)

bench-scale: $(INSTALLED)-torch
	$(PY) -m benchmarks.scale

bench-convergence: $(INSTALLED)-torch
	for name in normalization skew speedup staleness; do $(PY) -m benchmarks.convergence.$$name || exit 1; done

lint: $(INSTALLED)-torch
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(MAKE) --no-print-directory types

format: $(INSTALLED)-torch
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

# mypy knows no package_dir: it is shown the packages as they are installed, by links.
types: $(INSTALLED)-torch
	rm -rf $(TYPES) && mkdir -p $(TYPES)/hvd_gossip
	ln -s "$(CURDIR)"/hvd_gossip/* "$(CURDIR)"/frameworks/* $(TYPES)/hvd_gossip/
	ln -s "$(CURDIR)"/tests "$(CURDIR)"/benchmarks "$(CURDIR)"/examples $(TYPES)/
	cd $(TYPES) && MYPYPATH=examples "$(abspath $(PY))" -m mypy --config-file "$(CURDIR)/pyproject.toml" --cache-dir "$(CURDIR)/.mypy_cache" .

docs: $(INSTALLED)-torch
	$(PY) -m hvd_gossip.config > docs/settings.md

$(INSTALLED)-%: setup.py pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[$*,mpi,dev]'
	touch $@

# A python3.x may be on PATH and yet not work (a version manager's shim), or lack what makes environments.
$(PY):
	@for python in $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python3.10); do \
	  if $$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; exec $$python -m venv $(VENV); \
	  fi; \
	done; \
	echo "No Python from 3.10 to 3.14 that can make a virtual environment (Debian: apt install python3-venv)." >&2; \
	echo "Name one: make PYTHON=/path/to/python3" >&2; exit 1

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV)
