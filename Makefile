# Needs Python 3.11 or later and make; everything else comes from the locked requirements into .venv.

# The first one that is new enough; `make PYTHON=...` chooses another.
PYTHON := $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
SECONDS = 60
FLOOD =
MINUTES = 30
SEED =
SBOM = sluice.cdx.json

VENV = .venv/bin/python
LOCKS = requirements.txt requirements-dev.txt
COMPILE = $(VENV) -m piptools compile --quiet --generate-hashes --strip-extras --no-header --no-config \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

.DEFAULT_GOAL := help
.PHONY: help env demo test chaos chaos-ci soak test-long lint bench bench-quick generated lock sbom audit-deps clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

# A changed modification time alone changes nothing: the stamp is a copy of the installed lock.
env: ## build .venv from the lock, once, and again when the lock changes
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or later was found; make PYTHON=/path/to/python3" >&2; exit 1; }
	@if ! test -x $(VENV) || ! cat $(LOCKS) | cmp -s - .venv/installed-lock; then \
		echo "installing the locked requirements into .venv (a minute or two)" && \
		$(PYTHON) -m venv --clear .venv && \
		$(VENV) -m pip install -qq --disable-pip-version-check --require-hashes --only-binary :all: \
			-r requirements.txt -r requirements-dev.txt && \
		cat $(LOCKS) > .venv/installed-lock; \
	fi

demo: env ## the whole relay on this machine, then an audit: SECONDS=60 FLOOD=btcusdt@trade
	@$(VENV) driver.py demo --seconds "$(SECONDS)" $(if $(FLOOD),--flood "$(FLOOD)")

test: lint ## lint, then the tests
	@$(VENV) -m pytest

# `SLUICE_CHAOS_LONG=1 make chaos` gives each fault its full length.
chaos: env ## every fault of the table, one after the other, and the table of what was measured
	@$(VENV) -m pytest tests/chaos -m "chaos and not soak"

chaos-ci: env ## the faults that every change has to survive
	@$(VENV) -m pytest tests/chaos -m chaos_ci

soak: env ## all faults at random for half an hour, then a minute to be steady again: MINUTES=3 SEED=7
	@SLUICE_SOAK_MINUTES="$(MINUTES)" SLUICE_CHAOS_SEED="$(SEED)" $(VENV) -m pytest tests/chaos/test_soak.py -m soak -s

test-long: env ## what takes longer: jobs, a second node (root), Prometheus and Chromium where they are installed
	@$(VENV) -m pytest -m long

lint: env ## ruff, mypy, and who may import whom
	@$(VENV) -m ruff check .
	@$(VENV) -m mypy
	@.venv/bin/lint-imports --no-logo --no-cache

bench: env ## Sluice, a one-process forwarder and the old design side by side
	@$(VENV) -m bench

bench-quick: env ## the same with short loads
	@$(VENV) -m bench --quick

generated: env ## write anew what is made of the code: docs/metrics.md and the dashboards in k8s/grafana
	@$(VENV) -m tools.metrics_page > docs/metrics.md
	@$(VENV) -m tools.dashboards sluice > k8s/grafana/sluice.json
	@$(VENV) -m tools.dashboards ray > k8s/grafana/ray-default.json

# pip-tools is no requirement of ours, so it comes and goes unlocked, on a maintainer's machine alone.
lock: env ## write the lock anew from requirements.in and requirements-dev.in
	@$(VENV) -m pip install -qq pip-tools
	@$(COMPILE) --output-file requirements.txt requirements.in
	@$(COMPILE) --output-file requirements-dev.txt requirements-dev.in

# The same lock gives the same bytes. The warning ignored: a lock does not hold which package needs which.
sbom: env ## write a CycloneDX bill of materials from the lock: SBOM=sluice.cdx.json
	@test -x .venv-sbom/bin/cyclonedx-py || { $(PYTHON) -m venv .venv-sbom && .venv-sbom/bin/pip install -qq cyclonedx-bom; }
	@.venv-sbom/bin/python -W ignore::UserWarning -m cyclonedx_py requirements --pyproject pyproject.toml \
		--output-reproducible --output-file "$(SBOM)" requirements.txt

# Asks a vulnerability service over the network. --strict: a package that could not be looked up is a failure.
audit-deps: env ## look up known vulnerabilities of what is locked
	@test -x .venv-audit/bin/pip-audit || { $(PYTHON) -m venv .venv-audit && .venv-audit/bin/pip install -qq pip-audit; }
	@.venv-audit/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.txt

clean: ## remove .venv and every cache
	rm -rf .venv .venv-audit .venv-sbom .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
