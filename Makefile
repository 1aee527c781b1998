# Every target is one command of local/localcluster, which brings what it needs: packages (as root on Debian or Ubuntu,
# else it says which), the Python environment, the cluster's programs, the cluster, the images.
LOCALCLUSTER := PYTHONPATH=local python3 -m localcluster
ARGS ?=

.PHONY: help up down status shell demo test bench soak conformance-aws timelines tools images crds lint

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

up: ## Bring the local cluster up (idempotent)
	@$(LOCALCLUSTER) up

down: ## Remove the local cluster and everything it left
	@$(LOCALCLUSTER) down

status: ## Say what is up
	@$(LOCALCLUSTER) status

shell: ## Open a shell in the cluster's network, with kubectl and helm
	@$(LOCALCLUSTER) enter

demo: ## Watch an Endpoint being created, updated and rolled back (ARGS: further options)
	@$(LOCALCLUSTER) demo $(ARGS)

test: ## Run every test (ARGS: pytest's arguments, for example ARGS='-k canary')
	@$(LOCALCLUSTER) test $(ARGS)

bench: ## Measure the figures of docs/performance.md (ARGS: the benchmark's options)
	@$(LOCALCLUSTER) bench $(ARGS)

soak: ## Measure under the long settings, kill the operator at every call, disturb every kind of deployment (5 hours)
	@$(LOCALCLUSTER) bench --throttle-minutes 10 --steady-minutes 30 $(ARGS)
	@SLUICE_TEST_EVERY_CALL=1 $(LOCALCLUSTER) test tests/operator/test_operator_crashes.py tests/operator/test_cluster_crashes.py
	@SLUICE_MATRIX=full $(LOCALCLUSTER) test tests/cluster/test_cluster_matrix.py

conformance-aws: ## Run the conformance table in a real AWS account (ARGS: see ARGS=--help; it costs money)
	@$(LOCALCLUSTER) conformance-aws $(ARGS)

timelines: ## Draw the pictures of docs/deployments.md anew, from real runs (some 5 minutes)
	@$(LOCALCLUSTER) timelines

tools: ## Build the cluster's programs into the cache
	@$(LOCALCLUSTER) tools

images: ## Build the product's images (those of the examples are built when needed)
	@$(LOCALCLUSTER) images

crds: ## Generate crds/ and the reference from the models
	@$(LOCALCLUSTER) crds

lint: ## Run ruff, mypy and the layering contract
	@$(LOCALCLUSTER) lint
