# Polyvec's verbs. `make` alone lists them.

PYTHON ?= python3
URL ?= http://127.0.0.1:8000
ARGS ?=
PROCESSES ?= 2
BIN := .venv/bin

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help serve test check clients bench bench-gpu load observe chart clean

help: ## show these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: ## install what is needed, then serve the default model on http://127.0.0.1:8000 (ARGS=...)
	@$(PYTHON) deployments/install.py demo auto
	@exec $(BIN)/polyvec serve $(ARGS)

test: ## install what is needed, then lint, type-check and run every test (ARGS=...)
	@$(PYTHON) deployments/install.py test demo vllm load
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadgroup --no-loadscope-reorder $(ARGS)

check: ## what pre-commit runs: ruff, mypy, the house tests
	@$(PYTHON) deployments/install.py test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/house

clients: ## install every client that a dialect is for, apart from vLLM, and run them all against the service
	@POLYVEC_VENV=.venv-clients $(PYTHON) deployments/install.py test clients
	@if command -v npm > /dev/null; then npm install --silent --no-package-lock --prefix tests/clients/node; fi
	.venv-clients/bin/python -m pytest tests/clients $(ARGS)

bench: ## measure a running server, in texts per server-CPU-second (URL=..., ARGS="--raw --vs ...")
	@$(PYTHON) deployments/install.py test
	@exec $(BIN)/python -m loadtests.bench --url $(URL) $(ARGS)

bench-gpu: ## measure the vLLM engine on this machine's GPU (ARGS="--rounds 5")
	@$(PYTHON) deployments/install.py test vllm
	@exec $(BIN)/python -m loadtests.gpu $(ARGS)

load: ## put simulated users on a running server (URL=..., ARGS="-u 64 -t 1m")
	@$(PYTHON) deployments/install.py load
	@exec $(BIN)/locust -f loadtests/locustfile.py --headless -u 32 -r 8 -t 30s --only-summary --report build/load.html --host $(URL) $(ARGS)

observe: ## run Prometheus with our rules against a running server (URL=..., ARGS="--port 9091")
	@$(PYTHON) deployments/install.py
	@exec $(BIN)/python -m deployments.observability.observe --url $(URL) $(ARGS)

chart: ## write what follows from the chart's sources (schema, README, k8s/), lint and render it
	@$(PYTHON) deployments/install.py test
	@exec $(BIN)/python -m helm.build

clean: ## remove .venv and every cache
	rm -rf .venv .venv-clients build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
