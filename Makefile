# Works on a machine that has only Python 3.11 or newer with pip and venv.
# PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SERVER := $(CURDIR)/$(BIN)/python $(CURDIR)/tests/fresh_server.py {config} {port}
AREAS := smoke threads runs streaming protocol_v2 assistants store crons system
# sqlite or postgres: what the servers of the conformance suite run on.
DATABASE ?= sqlite
ON_postgres := $(BIN)/python tests/postgres_server.py run

# With split the server only answers requests, and a worker beside it executes the runs; with two
# there are two servers, and connections go to them in turn. Set REDIS_URI to have their events go
# through Redis.
ROLES ?= one
export ROLES

.PHONY: dev test unit simulation fuzz chaos cluster conformance javascript lint types format clean

dev: $(READY)
	$(BIN)/treadle dev --config examples/support-agent/langgraph.json

test: unit simulation fuzz chaos cluster javascript
	$(MAKE) conformance DATABASE=sqlite
	$(MAKE) conformance DATABASE=postgres

unit: $(READY)
	$(BIN)/pytest -n auto --maxprocesses 4

# 10,000 schedules of the queue and weeks of crons, over a fake clock.
simulation: $(READY)
	$(BIN)/pytest tests/simulation/test_queue.py tests/simulation/test_log.py \
	  tests/simulation/test_ticks.py

fuzz: $(READY)
	$(BIN)/pytest tests/fuzz

# Servers that are killed at every step. A sample of it takes a minute; CHAOS_SECONDS=60 plays all
# of it, and a soak of 10,000 runs.
chaos: $(READY)
	$(BIN)/pytest tests/chaos -n auto --maxprocesses 4

# Processes that share a PostgreSQL, and faults of all that they stand on; needs redis-server.
# CHAOS_SECONDS=60 lets random clients go on for longer, over Redis too.
cluster: $(READY)
	$(BIN)/pytest tests/cluster -n auto --maxprocesses 4 --dist loadfile

# Each server gets a fresh database below one temporary folder, which goes away at the end.
# known_beyond.txt has a test per line (area/test_file.py::test_name) that is not run yet.
conformance: $(READY)
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; touch "$$tmp/known"; \
	export DATABASE=$(DATABASE); \
	known=tests/conformance/known_beyond.txt; test ! -f $$known || \
	  sed -n 's/^[^#[:space:]].*/--deselect=&/p' $$known > "$$tmp/known"; \
	TMPDIR=$$tmp $(ON_$(DATABASE)) $(BIN)/pytest -c tests/conformance/pytest.ini \
	  $(AREAS:%=tests/conformance/%) --server-cmd "$(SERVER)" "@$$tmp/known" $(PYTEST_ARGS)

# The public JavaScript SDK, and a page with useStream in a DOM; skipped where there is no node.
javascript: $(READY)
	$(BIN)/pytest tests/javascript

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .pytest_cache .ruff_cache dist

# uv lives inside .venv and fills it with what uv.lock says; only a change of these files does
# it again.
$(READY): pyproject.toml uv.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv sync --frozen --inexact --python $(BIN)/python
	touch $(READY)
