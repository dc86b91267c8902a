"""Every notebook runs, each in a Python of its own: by nbdev-test, or where nbdev is not (Colab) in a kernel of Jupyter.

The course runs in smoke mode, also where there is a GPU."""
import importlib.util
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
notebooks = [p for p in sorted(root.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in p.parts]


def name(notebook): return notebook.relative_to(root/'nbs').with_suffix('').as_posix()


def flagged(flag): return [p for p in notebooks if f'#| {flag}' in p.read_text(encoding='utf-8')]


# Seconds, after which a notebook stands still: two attempts end before pytest's `faulthandler_timeout` ends them.
limits = {'': 300, 'cuda': 300, 'slow': 1000}


@pytest.fixture(autouse=True)
def temporary(monkeypatch):
    """Where a notebook keeps its temporary folders: they end with it, and together they would fill a small disk. The name
    is short, for the names of sockets in it may have 107 characters."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv('TMPDIR', folder)
        yield


def run(notebook, flags=''):
    if not importlib.util.find_spec('nbdev'):
        return runpy.run_path(root/'tools'/'run.py')['execute'](notebook, flags.split())
    command = [Path(sys.executable).with_name('nbdev-test'), notebook, '--flags', flags]
    for again in (True, False):
        failed, said = finished(command, limits[flags])
        if failed != 'stood still' or not again: break
        warnings.warn(f'{name(notebook)} stood still and was started again:\n{said}', stacklevel=1)
    if failed: pytest.fail(said, pytrace=False)


def finished(command, seconds):
    """Whether `command` failed, and the end of what it said. One that takes longer is ended, and says where each of its
    threads was: on virtual machines whole processes have stood still in a page fault."""
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          start_new_session=True, env=os.environ | {'PYTHONFAULTHANDLER': '1'}) as process:
        try: said, failed = process.communicate(timeout=seconds)[0], None
        except subprocess.TimeoutExpired:
            failed = 'stood still'
            os.killpg(process.pid, signal.SIGABRT)
            try: said = process.communicate(timeout=20)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                said = process.communicate()[0]
    return failed or (process.returncode and 'failed'), said[-6000:]


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
