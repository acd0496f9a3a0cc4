# What a person can do here. `just` lists it.

export PATH := justfile_directory() / ".venv/bin:" + env("PATH")
data := "/tmp/hutch-demo"

[private]
default:
    @just --list --unsorted

# Make .venv with everything that the tests and the checks need
setup:
    python3 -m venv .venv
    pip install -q --no-deps --require-hashes --only-binary :all: -r requirements-dev.txt
    pip install -q --no-deps --no-build-isolation -e .

# Run the tests that need no real Incus; arguments go to pytest
test *arguments:
    pytest -m "not incus" {{ arguments }}

# Run everything, as ./test does; needs root
test-all *arguments:
    sudo ./test {{ arguments }}

# Static checks and import rules
check:
    ruff check .
    ruff format --check .
    pyright
    lint-imports
    python -m docs.generate --check

# Put the code into its form
fmt:
    ruff format .
    ruff check --fix .

# Write the pages of docs/reference that come from the code
docs:
    python -m docs.generate

# Measure one thing: `just bench --help` names them
bench what *arguments:
    python -m bench {{ what }} {{ arguments }}

# Let a million things happen in a lab, and hold every plan of the scheduler to what must be true
soak *arguments:
    python -m tests.soak {{ arguments }}

# Let fifty people at three servers race for four accelerators so many times, on both databases
races rounds="1000":
    HUTCH_RACE_ROUNDS={{ rounds }} pytest -s tests/services/test_lease_races.py -k fifty

# Run the server of this working tree on a data folder
server folder=data:
    hutch server --data {{ folder }} --port 7481

# Set up a demo with simulated machines in /tmp/hutch-demo
demo:
    ./quickstart --engine simulated --data {{ data }} --command-dir {{ data }}-bin --set listen_port=7481 --yes

# Take the demo away
demo-down:
    hutch down --data {{ data }}
    rm -rf {{ data }} {{ data }}-bin

# Start an Incus of one's own, and say how to reach it; needs root
incus:
    python -m hutch.setup.private

# Have the checks run before each commit
hooks:
    pre-commit install
