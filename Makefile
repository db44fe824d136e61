# Works on a machine that has only Python 3.11 or newer with pip and venv.
# PYTHON=python3.12 chooses another interpreter.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
SERVER := $(CURDIR)/$(BIN)/python $(CURDIR)/tests/fresh_server.py {config} {port}
AREAS := smoke threads runs streaming protocol_v2 assistants store crons auth http_app system \
  mcp_endpoint a2a_endpoint
# sqlite or postgres: what the servers of the conformance suite run on.
DATABASE ?= sqlite
ON_postgres := $(BIN)/python tests/postgres_server.py run

CHROMIUM ?= /usr/bin/chromium

# With split the server only answers requests, and a worker beside it executes the runs; with two
# there are two servers, and connections go to them in turn. WITH=redis has their events go through
# Redis.
ROLES ?= one
export ROLES
WITH_redis := $(BIN)/python tests/redis_server.py run

# As many servers of each area run beside each other.
PARALLEL ?= 3

.PHONY: dev test fast unit simulation fuzz chaos cluster scale conformance javascript browser lint types \
  format settings clean

dev: $(READY)
	$(BIN)/treadle dev --config examples/support-agent/langgraph.json

test: unit simulation fuzz chaos cluster scale javascript browser
	$(MAKE) conformance DATABASE=sqlite
	$(MAKE) conformance DATABASE=postgres
	$(MAKE) conformance DATABASE=postgres ROLES=two WITH=redis

# While working: what needs no other process and no PostgreSQL.
fast: $(READY)
	$(BIN)/pytest tests/unit -n auto --maxprocesses 4 -k "not postgres" \
	  --ignore tests/unit/cli --ignore tests/unit/telemetry --ignore tests/unit/security

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
# All workers have to name tests alike, so sets come in one order.
conformance: $(READY)
	@set -e; tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; export DATABASE=$(DATABASE); \
	TMPDIR=$$tmp PYTHONHASHSEED=0 $(ON_$(DATABASE)) $(WITH_$(WITH)) \
	  $(BIN)/pytest -c tests/conformance/pytest.ini -n $(PARALLEL) --dist loadfile \
	  $(AREAS:%=tests/conformance/%) --server-cmd "$(SERVER)" $(PYTEST_ARGS)

# What the hottest queries read in a PostgreSQL of a million threads.
scale: $(READY)
	$(BIN)/pytest tests/scale

# The public JavaScript SDK; needs Node.js with npm.
javascript: $(READY)
	$(BIN)/pytest tests/javascript

# A page with useStream, in a headless Chromium: Debian's, installed if there is none, or CHROMIUM.
browser: $(READY)
	@test -x $(CHROMIUM) || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -y -qq --no-install-recommends chromium) > /dev/null || { \
	  echo "make browser needs a Chromium. There is none at $(CHROMIUM), and apt-get could not" \
	  "install one: install the package chromium, or say CHROMIUM=/path/of/one" >&2; exit 1; }
	CHROMIUM=$(CHROMIUM) $(BIN)/pytest tests/browser

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# docs/settings.md is written from the code.
settings: $(READY)
	$(BIN)/python scripts/settings_page.py

clean:
	rm -rf .venv .pytest_cache .ruff_cache dist

# uv lives inside .venv and fills it with what uv.lock says; only a change of these files does
# it again.
$(READY): pyproject.toml uv.lock
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv sync --frozen --inexact --all-extras --python $(BIN)/python
	touch $(READY)
