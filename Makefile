# The deeds of this repository.  What they do stands in scripts/; everything made is in .venv and .cache.
.PHONY: run test quick coverage bench mutants collector docs pictures lock clean

# pytest rewrites each assertion as it reads a file, 8 CPU seconds for all of them and each worker, and
# keeps the result where Python keeps its bytecode: an environment that forbids this pays in every run.
unexport PYTHONDONTWRITEBYTECODE

# Rehearse this machine's newest kernel, and the shipped one until it speaks.
run:
	@scripts/setup run
	@scripts/rehearse

# Everything the tests need, then all of them; the linters are among them.
test:
	@scripts/prepare
	@.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# The quick part, under a minute on two quiet cores: everything but the tests that tests/slow.txt lists.
quick:
	@scripts/prepare quick
	@.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" --quiet $(ARGS)

# Which lines and branches the tests reach: .venv/bin/python -m pytest's own arguments by ARGS=... .
coverage:
	@scripts/prepare
	@.venv/bin/python -m coverage run -m pytest $(ARGS)
	@.venv/bin/python -m coverage report
	@.venv/bin/python -m coverage html --quiet --directory .cache/coverage-html

bench:
	@scripts/setup test
	@scripts/fetch-kernels
	@scripts/fetch-kexec-tools
	@scripts/fetch-python-i386
	@.venv/bin/python -m bench $(ARGS)

# Change the rules and the page walk line by line, and name every change that no test notices: for the night.
mutants:
	@scripts/prepare quick
	@.venv/bin/python scripts/mutants $(ARGS)

# The script that collects a machine's files where nothing is installed, from the room's own source.
collector:
	@scripts/setup run
	@.venv/bin/python -c "from tightrope import host; print(host.script(), end='')" > contrib/capture.py

# The docs as a site, .cache/site/index.html: every link is checked, nothing is fetched.
docs:
	@scripts/setup test
	@.venv/bin/python -m sphinx -W --keep-going -q -b html -d .cache/doctrees docs .cache/site
	@echo "open .cache/site/index.html"

# The pictures of docs/pictures and of README.md, taken anew with Chromium.
pictures:
	@scripts/setup test
	@scripts/system-packages
	@scripts/fetch-kernels
	@.venv/bin/python scripts/pictures

# Pin the newest versions that pyproject.toml allows.
lock:
	@scripts/lock

clean:
	rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} +
