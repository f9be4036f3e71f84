# Two commands do all the set-up: `make demo` and `make test`. PYTHON may name any Python from 3.11 on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint docs findings reference base measure compare audit theory chaos clean

# The extras follow pyproject.toml. pip leaves an installed torch alone when it is new enough.
$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[train,dev,docs]"
	touch $@

demo: $(VENV)/.installed
	$(BIN)/dphyper sweep run sweeps/demo.yaml
	$(BIN)/dphyper report --store runs/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest --numprocesses=2

# Slow measurements on tuning tasks (they resume where they stopped): how defaults were chosen, what the hypernetwork
# reaches, what one network for every k costs, what limits it and where it would do harm; then what accounting,
# per-example gradients and adaptation cost.
measure: $(VENV)/.installed
	for name in tune_dp_sgd tune gap nested; do \
		$(BIN)/dphyper sweep run sweeps/small_target/$$name.yaml && $(BIN)/dphyper report --store runs/$$name || exit; done
	$(BIN)/python -m dphyper.studies.accounting_cost --store runs/tune_dp_sgd
	$(BIN)/python -m dphyper.studies.gradient_cost
	$(BIN)/python -m dphyper.studies.adaptation_cost sweeps/small_target/hypernetwork.yaml --out docs/results/cost/adaptation.csv
	$(BIN)/python -m dphyper.studies.limits sweeps/small_target/gap.yaml --out docs/results/small_target/gap/limits.csv
	$(BIN)/python -m dphyper.studies.edge sweeps/small_target/gap.yaml --out docs/results/small_target/gap/edge.csv

# Every method on two collections (the second wants CIFAR-10 in data/cifar10), the hypernetwork along its axes, and from
# near to far and over the number of public tasks (which want three archives in data/): many hours on two cores. Resumes
# where it stopped.
compare: $(VENV)/.installed
	for name in compare compare_cifar10 hypernetwork embedding_dim icons public_tasks; do \
		$(BIN)/dphyper sweep run sweeps/small_target/$$name.yaml && $(BIN)/dphyper report --store runs/$$name || exit; done

# Known bugs, each with the guard that catches it; the last bits of the former and the present release; every method's
# releases; then whole runs with and without one canary, sound and with planted faults, which resume where they stopped.
# About an hour and a half on one free core.
audit: $(VENV)/.installed
	$(BIN)/dphyper audit guards
	$(BIN)/dphyper audit bits --out docs/results/audit
	$(BIN)/dphyper audit all --epsilon 8 --draws 2000 --out docs/results/audit
	for method in faults all; do \
		$(BIN)/dphyper audit $$method --sweep sweeps/audit.yaml --runs 160 --out docs/results/audit || exit; done
	$(BIN)/dphyper audit hypernetwork --sweep sweeps/audit.yaml --runs 200 --out docs/results/audit

# The synthetic setting of the theory: more than 60,000 runs, figures, LaTeX table. Resumes where it stopped.
theory: $(VENV)/.installed
	$(BIN)/python -m dphyper.studies.theory --out docs/results/theory

# The base model that comes with the package, trained anew where it is not there: about an hour on one core.
base: $(VENV)/.installed
	$(BIN)/python -m dphyper.studies.ship_base sweeps/demo.yaml

# A sweep whose workers are killed and whose database restarts, against one that is left alone. It needs PostgreSQL
# (apt-get install postgresql), and root for hosts of its own and for a full disk.
chaos: $(VENV)/.installed
	$(BIN)/python -m dphyper.studies.chaos sweeps/chaos.yaml --out runs/chaos

lint: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy bench methods datasets sweeps reports

# The site, into build/site: every link is checked, and nothing is fetched when it is read.
docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Tables, figures, findings and README again from the rows under docs/results.
findings: $(VENV)/.installed
	$(BIN)/python -m dphyper.reports.findings

# The reference pages again from the code.
reference: $(VENV)/.installed
	$(BIN)/python -m dphyper.cli.reference_pages
	$(BIN)/python -m dphyper.cli.methods_page > docs/methods.md
	$(BIN)/python -m dphyper.datasets.odd_files > docs/odd_files.md

clean:
	rm -rf runs build dist
