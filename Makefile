# Everything a reader of the paper, or of this code, wants done. `make help` lists it.
# Options of bench: MODELS RULES MODES PARTS THREADS DEVICE, see python -m benchmarks bench models --help
# Options of the reproduce targets: SCALE=auto|paper|mini|smoke SEEDS=n RULES=a,b CELLS='bp:*' DRY=1 RETRY=1 DEVICE=cuda,
#   and where they run: LAUNCHER=local|serial|slurm|ray JOBS=n SET="launcher.partition=long launcher.minutes=60" (no spaces within a setting)
# Options of tune-table-N: SCALE JOBS RULES SET DRY, e.g. RULES=mine SET="plugins=[mine.py]" for a rule of your own
# Options of search: SPACE CHOICE TRIALS SEEDS JOBS, e.g. make search SPACE=graphs CHOICE="task=cora model=gcn rule=dfa"

PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python
STAMP = $(VENV)/.installed
LIBRARY_VENV ?= .venv-library
SITE_VENV ?= .venv-site
CONSTRAINTS ?= constraints.txt
SCALE ?= auto
# empty where an option such as DRY is switched off
yes = $(filter-out 0 no false,$(1))
PLAN = --scale $(SCALE) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(RULES),--rules $(RULES)) $(if $(call yes,$(RETRY)),--set run.retry=true) \
       $(if $(DEVICE),--set run.device=$(DEVICE)) $(foreach setting,$(SET),--set $(setting))
OPTIONS = $(PLAN) $(if $(CELLS),--cells '$(CELLS)') $(if $(LAUNCHER),--launcher $(LAUNCHER)) $(if $(JOBS),--jobs $(JOBS)) $(if $(call yes,$(DRY)),--dry)

.DEFAULT_GOAL := help
.PHONY: help install test test-library lint data reproduce verify-records status chaos bench search bench-recommenders site test-site clean

help:  ## what can be made
	@grep -hE '^[a-zA-Z_%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 26

install: $(STAMP)  ## virtual environment with the tested versions of everything

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[suite,dev]'
	touch $@

test: install  ## all tests, on CPU and without network
	$(RUN) -m pytest -n 2 --dist worksteal

test-library:  ## the library's tests with nothing of the suite installed, e.g. PYTHON=python3.10 CONSTRAINTS=constraints-lowest.txt
	$(PYTHON) -m venv --clear $(LIBRARY_VENV)
	$(LIBRARY_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS) \
	  --editable . pytest pytest-timeout pytest-xdist numpy psutil
	$(LIBRARY_VENV)/bin/python -m pytest -n 2 --dist worksteal --confcutdir tests/dfa tests/dfa

lint: install  ## style and types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(RUN) -m basedpyright --pythonpath $(RUN)

data: install  ## fetch public data into DFA_DATA_DIR (default: data/), e.g. make data TASK="cora pubmed"
	$(RUN) -m benchmarks fetch $(TASK)

reproduce-table-%: install  ## a table beside the paper's numbers: N = 1 to 5, A1 to A5, A5-reduced, A5-full, 5-wikitext2, movielens; A5-rules, 6, 6-wikitext2, 6-wikitext2-recorded, 6-long (ours)
	$(RUN) -m benchmarks reproduce table_$* $(OPTIONS)

reproduce-figure-%: install  ## a figure: N = 1, 2, A1, A2, A3, 1-reduced, 1-curves, 1-full, 1-full-coarse, L1, L2; 6, 6-wikitext2, 6-depth, 6-long, 6-long-post (ours)
	$(RUN) -m benchmarks reproduce figure_$* $(OPTIONS)

tune-table-%: install  ## choose every cell's learning rate on validation, for a table whose file lists `rates`: N = 6, 6-wikitext2
	$(RUN) -m benchmarks tune table_$* $(if $(filter-out auto,$(SCALE)),--scale $(SCALE)) $(if $(RULES),--rules $(RULES)) \
	  $(if $(JOBS),--jobs $(JOBS)) $(foreach setting,$(SET),--set $(setting)) $(if $(call yes,$(DRY)),--dry)

bench: install  ## time and memory of a training step under every rule, e.g. make bench MODELS=gcn,dcn THREADS=2
	$(RUN) -m benchmarks bench $(if $(MODELS),--models $(MODELS)) $(if $(RULES),--rules $(RULES)) $(if $(MODES),--modes $(MODES)) \
	  $(if $(PARTS),--parts $(PARTS)) $(if $(THREADS),--threads $(THREADS)) $(if $(DEVICE),--device $(DEVICE))

search: install  ## try settings, keep the best on validation: SPACE=recommenders CHOICE="task=click_log model=dcn scale=mini"
	$(RUN) -m benchmarks search $(SPACE) $(CHOICE) $(if $(TRIALS),--trials $(TRIALS)) $(if $(SEEDS),--seeds $(SEEDS)) \
	  $(if $(JOBS),--jobs $(JOBS))

bench-recommenders: install  ## how fast click logs are preprocessed and read, and steps at the paper's scale
	$(RUN) -m benchmarks bench click_logs

reproduce: install  ## every table and figure, but those of hours that have to be asked for by name
	$(RUN) -m benchmarks reproduce all $(OPTIONS)

verify-records: install  ## committed tables are what their committed records give, byte for byte
	$(RUN) -m benchmarks records verify

site: $(SITE_VENV)/.installed  ## pages to browse, in site/index.html: documents, reference, tables down to their runs
	$(SITE_VENV)/bin/python -m benchmarks site

test-site: site  ## the pages in a browser (Chromium, where there is one)
	$(SITE_VENV)/bin/python -m pytest -n 2 --dist worksteal --confcutdir tests/site tests/site/test_build.py tests/site/test_browser.py

$(SITE_VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(SITE_VENV)
	$(SITE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(SITE_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --group site
	touch $@

status: install  ## runs done, running, interrupted, failed, damaged, missing, and why, e.g. make status TABLE="table_3 table_4"
	$(RUN) -m benchmarks status $(TABLE) $(PLAN)

chaos: install  ## kill the processes of a sweep at random moments and compare with an undisturbed one, e.g. make chaos KILLS=40 DAMAGE=1
	$(RUN) -m benchmarks chaos $(if $(KILLS),--kills $(KILLS)) $(if $(call yes,$(DAMAGE)),--damage)

clean:  ## remove the virtual environment (results stay)
	rm -rf $(VENV)
