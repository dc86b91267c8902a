"""Every notebook runs, each in a Python of its own: by nbdev-test, or where nbdev is not (Colab) in a kernel of Jupyter.

The course runs in smoke mode, also where there is a GPU."""
import importlib.util
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
notebooks = [p for p in sorted(root.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in p.parts]


def name(notebook): return notebook.relative_to(root/'nbs').with_suffix('').as_posix()


def flagged(flag): return [p for p in notebooks if f'#| {flag}' in p.read_text(encoding='utf-8')]


def run(notebook, flags=''):
    if not importlib.util.find_spec('nbdev'):
        return runpy.run_path(root/'tools'/'run.py')['execute'](notebook, flags.split())
    command = [Path(sys.executable).with_name('nbdev-test'), notebook, '--flags', flags]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    if done.returncode: pytest.fail((done.stdout + done.stderr)[-6000:], pytrace=False)


@pytest.mark.parametrize('notebook', notebooks, ids=name)
def test_notebook(notebook, monkeypatch):
    if notebook.parent.name == 'course': monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    run(notebook)


@pytest.mark.slow
@pytest.mark.parametrize('notebook', flagged('slow'), ids=name)
def test_slow_cells(notebook): run(notebook, 'slow')


@pytest.mark.cuda
@pytest.mark.parametrize('notebook', flagged('cuda'), ids=name)
def test_cuda_cells(notebook): run(notebook, 'cuda')
