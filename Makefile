# The two commands of the README are `make up` and `make test`; everything they need is made by what they depend on.
# Needs Linux, Python >= 3.11 and make. A second run finds the stamp files and touches no network.

CYCLES ?= 20
SEED ?= 1
PYTEST_FLAGS ?=
# The interpreter for the environment: the first of these that is new enough. PYTHON=... overrides.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The npm packages of the page, with the files that the API serves in api/page/vendor.
PAGE := scripts/page/node_modules/.installed
# Its servers die with it, and it stops when make is gone, however that ended.
TIED := exec setpriv --pdeathsig TERM --
# Servers that are unpacked from the distribution's packages, where the system has none.
SERVERS := $(CURDIR)/.servers
export PATH := $(PATH):/usr/sbin:/usr/local/sbin:$(SERVERS)/mosquitto/usr/sbin:$(SERVERS)/monitoring/usr/bin:$(SERVERS)/pgbouncer/usr/sbin

.DEFAULT_GOAL := help
.PHONY: help up test test-browser test-servers test-kafka check bench chaos lock clean system monitoring pgbouncer nftables

help:
	@echo 'make up | test | test-browser | test-servers | test-kafka | check | bench | chaos CYCLES=n SEED=s | lock | clean    (see README.md)'

up: system $(INSTALLED) $(PAGE)
	@$(TIED) $(BIN)/python -m local

# Needs no Java: the tests with a Kafka broker are those of test-kafka.
# Most tests wait for servers rather than compute, so more of them than there are cores run at a time.
test: system monitoring pgbouncer nftables $(INSTALLED) $(PAGE)
	$(BIN)/python -m pytest -n 4 --dist worksteal --ignore=tests/browser --ignore=tests/kafka $(PYTEST_FLAGS)

# The page in Chromium, before the whole platform; one test at a time, because some measure. Pictures of every view are in
# browser-results.
test-browser: system $(INSTALLED) $(PAGE)
	@sh scripts/browser-packages
	$(BIN)/python -m pytest $(PYTEST_FLAGS) tests/browser

# The tests of the store, of MQTT and of the dashboards with the oldest PostgreSQL that is served and a newer Mosquitto.
test-servers: system monitoring $(INSTALLED)
	@servers="$$(sh scripts/test-servers $(SERVERS))" && env $$servers $(BIN)/python -m pytest -n 4 --dist worksteal \
		$(PYTEST_FLAGS) $(addprefix tests/integration/test_,store.py migration.py roles.py schema_mismatch.py \
		poison_positions.py mqtt_ingest.py mqtt_security.py mqtt_session.py bridge_process.py monitoring.py)

# With a real Kafka broker. Java, Maven and the broker's jars are installed where they are missing.
test-kafka: system $(INSTALLED)
	@sh scripts/kafka/install $(SERVERS)/kafka
	FLEET_TEST_KAFKA_JARS=$(SERVERS)/kafka $(BIN)/python -m pytest $(PYTEST_FLAGS) tests/kafka

check: $(INSTALLED) $(PAGE)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@sh scripts/page/check $(VENV)
	$(BIN)/python -m pytest -q tests/unit/test_arrows.py

bench: system $(INSTALLED)
	@$(TIED) env FLEET_TEST_KAFKA_JARS=$(wildcard $(SERVERS)/kafka) $(BIN)/python -m tests.bench $(if $(QUICK),--quick)

chaos: system $(INSTALLED)
	$(BIN)/python -m tests.acceptance.chaos --cycles $(CYCLES) --seed $(SEED)

# Locks the versions again. The files name no package index, so that every machine uses its own.
LOCK := --quiet --generate-hashes --strip-extras --allow-unsafe --no-emit-index-url --no-emit-trusted-host --no-emit-find-links
lock: $(INSTALLED)
	$(BIN)/python -m pip install --quiet pip-tools
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile $(LOCK) --all-extras -o requirements.lock pyproject.toml
	CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/pip-compile $(LOCK) --extra simulator --extra provision --extra nats --extra kafka -o requirements-service.lock pyproject.toml

# Removes the environment, the unpacked servers, the caches and the data of `make up`.
clean:
	rm -rf $(VENV) $(dir $(PAGE)) scripts/page/generated api/page/vendor browser-results .servers .local build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis bench-results

system:
	@sh scripts/system-packages $(SERVERS)/mosquitto

monitoring:
	@sh scripts/monitoring-servers $(SERVERS)/monitoring

pgbouncer:
	@sh scripts/pgbouncer $(SERVERS)/pgbouncer

nftables:
	@sh scripts/nftables $(SERVERS)/nftables

$(INSTALLED): requirements.lock pyproject.toml
	@sh scripts/virtual-environment '$(PYTHON)' $(VENV)
	@touch $@

$(PAGE): scripts/page/package-lock.json $(INSTALLED)
	@sh scripts/page-packages $(VENV)
	@touch $@
