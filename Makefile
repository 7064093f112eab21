# make results: set up, run the default sweep and its report. make test: set up, check everything.
# make check: the linters and the fast tests, for while one works.
PYTHON ?= python3
CORES ?= all
PORT ?= 5000
VENV := .venv
PLAYWRIGHT := 1.65.2
PSYCOPG := 2.9.13
SLURM_PLUGIN := 2.8.0
BIN := $(VENV)/bin
INSTALL = $$(command -v uv || echo $(BIN)/uv) pip install --quiet --python $(BIN)/python

# containers often set this; every job would compile torch, diffusers and MLflow anew, which takes half of a short job
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env results check checked test tested test-browser test-container test-kills test-postgres test-slurm lint ui lock clean

env: $(VENV)/.ready

# uv is used where it is installed, and put into the environment where it is not
$(VENV)/.ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python 3.11 or newer is needed; say make PYTHON=python3.12")'
	@if command -v uv >/dev/null; then uv venv --quiet --clear --python $(PYTHON) $(VENV); \
	else $(PYTHON) -m venv --clear $(VENV) && $(BIN)/python -m pip install --quiet 'uv>=0.8'; fi
	@echo "installing into $(VENV) (some 5 GB with torch) ..."
	@$(INSTALL) --require-hashes -r requirements.lock
	@$(INSTALL) --no-deps -e .
	@touch $@

results: env
	$(BIN)/snakemake --cores $(CORES)
	@echo; echo "table    results/summary.md (and summary.csv)"; echo "report   results/report.html"; \
	echo "MLflow   make ui prints the address of its page"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow

# the type checker takes one core, so the tests begin beside it
check test: env
	@$(MAKE) --no-print-directory --jobs 2 lint $@ed

checked: env
	$(BIN)/python -m pytest --numprocesses auto -m 'not slow'

tested: env
	$(BIN)/python -m pytest --numprocesses auto

# a small sweep killed at random moments, 20 times, and started again: ends in the same tables
test-kills: env
	$(BIN)/python -m pytest tests/kills/killed_sweep.py

# the report in Chromium (Debian's package, or the one that CHROMIUM names); Playwright is installed apart
test-browser: env
	@test -d $(VENV)/browser || $(INSTALL) --target $(VENV)/browser playwright==$(PLAYWRIGHT)
	PYTHONPATH=$(CURDIR)/$(VENV)/browser $(BIN)/python -m pytest tests/browser/report_page.py

# eight writers at an MLflow server with PostgreSQL behind it: needs root and Debian's package postgresql
test-postgres: env
	@test -d $(VENV)/postgres || $(INSTALL) --target $(VENV)/postgres psycopg2-binary==$(PSYCOPG)
	PYTHONPATH=$(CURDIR)/$(VENV)/postgres $(BIN)/python -m pytest tests/postgres/shared_server.py

# a sweep on a real Slurm of one node: needs root and Debian's packages slurm-wlm and munge
test-slurm: env
	@test -d $(VENV)/slurm || $(INSTALL) --target $(VENV)/slurm --no-deps \
	  snakemake-executor-plugin-slurm==$(SLURM_PLUGIN) snakemake-executor-plugin-slurm-jobstep==0.6.1 throttler==1.2.3
	PYTHONPATH=$(CURDIR)/$(VENV)/slurm $(BIN)/python -m pytest tests/slurm/slurm_sweep.py

# containers/Dockerfile built and a sweep run in it: needs root, Debian's packages debootstrap and buildah, and 20 GB
test-container: env
	$(BIN)/python -m pytest tests/container/built_image.py

ui: env
	@$(BIN)/python -m eval ui --port $(PORT)

lock:
	uv pip compile --quiet pyproject.toml --extra suite --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --custom-compile-command "make lock" -o requirements.lock

clean:
	find results -mindepth 1 -not -name README.md -delete
	rm -rf .snakemake
