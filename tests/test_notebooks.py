"""Every notebook runs, each in a Python of its own: by nbdev-test, or where nbdev is not (Colab) in a kernel of Jupyter."""
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
notebooks = [p for p in sorted(root.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in p.parts]


def flagged(flag): return [p for p in notebooks if f'#| {flag}' in p.read_text(encoding='utf-8')]


def run_in_kernel(notebook, flags):
    import nbclient
    import nbformat
    book = nbformat.read(notebook, as_version=4)
    left_out = {'slow', 'cuda'} - {flags}
    book.cells = [c for c in book.cells if not left_out & set(re.findall(r'^#\| *(\w+)', c.source, re.M))]
    nbclient.NotebookClient(book, timeout=600, kernel_name='python3', resources={'metadata': {'path': notebook.parent}}).execute()


def run(notebook, flags=''):
    if not importlib.util.find_spec('nbdev'): return run_in_kernel(notebook, flags)
    command = [Path(sys.executable).with_name('nbdev-test'), notebook, '--flags', flags]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode: pytest.fail((done.stdout + done.stderr)[-6000:], pytrace=False)


@pytest.mark.parametrize('notebook', notebooks, ids=lambda p: p.stem)
def test_notebook(notebook): run(notebook)


@pytest.mark.slow
@pytest.mark.parametrize('notebook', flagged('slow'), ids=lambda p: p.stem)
def test_slow_cells(notebook): run(notebook, 'slow')


@pytest.mark.cuda
@pytest.mark.parametrize('notebook', flagged('cuda'), ids=lambda p: p.stem)
def test_cuda_cells(notebook): run(notebook, 'cuda')
