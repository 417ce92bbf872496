# Set the course up, open it, test it. The logic is in tools/ and in the package, and works without make too.
#
#   PYTHON   the Python (3.11 or later) that .venv is made with. After changing it, run `make clean` first.
#   TORCH    which torch: auto (a CUDA build where there is an NVIDIA GPU, else a CPU build), cpu, cuda,
#            default (whatever pip's package index has), or the URL of a package index
#   WORKERS  how pytest shares the tests out: -n 2 --dist loadfile, two processes, each with up to 4 GB, its
#            notebook's kernel included; empty for one process
#   LAB_OPTIONS   more options for JupyterLab, such as --no-browser

PYTHON ?= python3
TORCH ?= auto
WORKERS ?= -n 2 --dist loadfile
LAB_OPTIONS ?=

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif

# What looking after the course takes, which learners never need.
UPKEEP := .venv/upkeep.stamp

.DEFAULT_GOAL := help
.PHONY: help lab test studies check-studies reproductions setup doctor notebooks exercises slides book places test-portable test-browser test-browser-all report audit lint links lock clean

help:
	@echo "make lab         set up what is missing, and open the first lesson in JupyterLab"
	@echo "make test        set up what is missing, and run every test and every notebook"
	@echo "make test-browser      drive JupyterLab with Chromium: short lessons, controls, zoom, dark theme (minutes)"
	@echo "make test-browser-all  the same with every lesson as a whole"
	@echo "make report      measure set-up, lessons and benchmarks, and write benchmarks/report.md (an hour)"
	@echo "make audit       look for known vulnerabilities in the pinned packages (asks a service on the network)"
	@echo "make test-portable   run the notebooks as another processor would, with one thread"
	@echo "make setup       set up what is missing: .venv, packages, learn2learn, model"
	@echo "make doctor      say what is installed, what is missing, and what to do"
	@echo "make studies     compute what is missing of the recorded studies (says how long beforehand)"
	@echo "make check-studies  compute a sample of each study again and compare (CHECK=--quick: the quick ones)"
	@echo "make reproductions  write docs/reproductions.md and the README's rows anew from the recorded studies"
	@echo "make notebooks   run every lesson and solution from a fresh kernel and store its outputs"
	@echo "make exercises   write exercises/ anew from solutions/"
	@echo "make slides      write build/slides/ from the lessons as they are stored"
	@echo "make book        write build/book/html, the web book, and check its links (takes Node.js; minutes at first)"
	@echo "make places      write badges and Colab's first cell anew from the address in pyproject.toml"
	@echo "make lint        check style, spelling, links between pages, and the budgets of lessons"
	@echo "make links       ask every address on the web that the pages link to"
	@echo "make lock        write requirements.lock and environment.yml anew from pyproject.toml"
	@echo "make clean       remove .venv and what tools leave behind (the model stays in its cache)"
	@echo
	@echo "Variables: PYTHON=$(PYTHON)  TORCH=$(TORCH) (auto, cpu, cuda, default, or an index's URL)"
	@echo "           WORKERS=$(WORKERS)  (for make test and make test-portable)"

lab: setup
	$(BIN)/jupyter lab --ServerApp.root_dir=. $(LAB_OPTIONS) notebooks/00_start_here.ipynb

# One call for both, so that one summary line tells of both. A cell may take longer than a unit test. Two processes with
# a thread each take a file at a time: most of the work is too small for a second thread to shorten it much.
test: export OMP_NUM_THREADS = 1
test: setup
	$(BIN)/python -m pytest tests notebooks/*.ipynb solutions/*.ipynb --timeout 1200 $(WORKERS) \
	  --nbval --nbval-current-env --nbval-cell-timeout 1100 --nbval-sanitize-with tests/nbval_sanitize.cfg

# In a real browser: Debian's Chromium, or the one that CHROMIUM names. Plain `make test` leaves tests/browser out.
test-browser: setup $(UPKEEP)
	$(BIN)/python -m pytest tests/browser --timeout 660

test-browser-all: setup $(UPKEEP)
	$(BIN)/python -m pytest tests/browser --timeout 900 --all-lessons

# Some pieces only: make report REPORT="--lessons 00,05". On a machine that does nothing else.
report: setup
	$(BIN)/python benchmarks/report.py $(REPORT)

# Exit status 0: nothing known. 1: something is. 3: it could not be looked up, which says nothing. make itself ends
# with 2 for both, and names them as Error 1 and Error 3; tools/audit.py by itself ends with them.
audit: setup $(UPKEEP)
	@$(BIN)/python tools/audit.py

# The notebooks once more, as a processor without AVX-512 and with one core would run them: stored numbers hold there
# too. Some only: make test-portable PORTABLE="notebooks/05_maml_math.ipynb"
PORTABLE ?= notebooks/*.ipynb solutions/*.ipynb
test-portable: export ATEN_CPU_CAPABILITY = avx2
test-portable: export ONEDNN_MAX_CPU_ISA = AVX2
test-portable: export MKL_ENABLE_INSTRUCTIONS = AVX2
test-portable: export OMP_NUM_THREADS = 1
test-portable: setup
	$(BIN)/python -m pytest $(PORTABLE) --timeout 1800 $(WORKERS) \
	  --nbval --nbval-current-env --nbval-cell-timeout 1500 --nbval-sanitize-with tests/nbval_sanitize.cfg

setup:
	@$(PYTHON) tools/bootstrap.py --torch "$(TORCH)"

$(UPKEEP): requirements-upkeep.lock requirements.lock
	@$(PYTHON) tools/bootstrap.py --torch "$(TORCH)"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock -r requirements-upkeep.lock
	@$(PYTHON) -c "import pathlib; pathlib.Path('$(UPKEEP)').touch()"

doctor:
	@test -e $(BIN)/python || { echo "There is no .venv yet. What to do: run make setup."; exit 1; }
	@$(BIN)/python -m rapidadapt_lessons doctor

studies: export OMP_NUM_THREADS = 1
studies check-studies: STUDIES = $(shell grep -l "^STUDY = " studies/*.py)
studies: setup
	@set -e; for study in $(STUDIES); do $(BIN)/python $$study; done

CHECK ?=
check-studies: setup
	@set -e; for study in $(STUDIES); do $(BIN)/python $$study --check $(CHECK); done

reproductions: setup
	$(BIN)/python tools/reproductions.py

notebooks: setup
	$(BIN)/python tools/run_notebooks.py notebooks/*.ipynb solutions/*.ipynb

exercises: setup
	$(BIN)/python tools/exercises.py

# Some lessons only, or other options: make slides SLIDES="notebooks/01_prompting.ipynb --reveal-prefix URL"
slides: setup
	$(BIN)/python tools/slides.py $(SLIDES)

# What its pages load comes from npm once; they ask no other host afterwards.
book: setup $(UPKEEP)
	$(BIN)/python tools/book.py

places: setup
	$(BIN)/python tools/places.py

# Offline. Addresses on the web are asked by `make links`.
lint: setup $(UPKEEP)
	$(BIN)/ruff check .
	$(BIN)/python tools/links.py
	$(BIN)/python tools/spelling.py
	$(BIN)/python tools/lesson_budget.py

links: setup
	$(BIN)/python tools/links.py --external

lock:
	$(PYTHON) tools/lock.py --torch "$(TORCH)"

clean:
	$(PYTHON) -c "import pathlib, shutil; junk = ['.venv', 'build', '.pytest_cache', '.ruff_cache', '.hypothesis', *pathlib.Path().glob('*.egg-info'), *(p for d in ('rapidadapt_lessons', 'tests', 'tools') for p in pathlib.Path(d).rglob('__pycache__'))]; [shutil.rmtree(path, ignore_errors=True) for path in junk]"
