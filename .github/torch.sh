#!/usr/bin/env bash
# PyTorch for a processor, a tenth of the size, into .venv. It comes from PyTorch's own index alone, all else from PyPI alone: where pip may
# choose between two indexes, whoever puts a higher version of some name on either is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
test -x .venv/bin/python || python -m venv .venv
.venv/bin/python -m pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu torch torchvision "$@"
