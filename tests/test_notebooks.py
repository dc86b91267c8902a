"""Every notebook runs, each in a process of its own: by nbdev-test, or where nbdev is not (Colab)
in a kernel of Jupyter.

The course runs in smoke mode, also where there is a GPU."""
import faulthandler
import importlib.util
import multiprocessing
import os
import runpy
import signal
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


# The processes are forks of one that has imported the library: that saves each of them five seconds.
start_method = 'forkserver' if 'forkserver' in multiprocessing.get_all_start_methods() else 'spawn'
forked = multiprocessing.get_context(start_method)


@pytest.fixture(autouse=True)
def temporary(monkeypatch):
    """Where a notebook keeps its temporary folders: they end with it, and together they would fill
    a small disk. The name is short, for the names of sockets in it may have 107 characters."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        monkeypatch.setenv('TMPDIR', folder)
        yield


def run(notebook, record, flags=''):
    if not importlib.util.find_spec('nbdev'):
        return runpy.run_path(root/'tools'/'run.py')['execute'](notebook, flags.split())
    for again in (True, False):
        failed, said, seconds = finished(notebook, flags)
        if failed != 'stood still' or not again: break
        warnings.warn(f'{name(notebook)} stood still and was started again:\n{said}', stacklevel=1)
    record('elsewhere', seconds)
    if failed: pytest.fail(said, pytrace=False)


def finished(notebook, flags):
    """Whether a notebook failed, the end of what it said, and the processor's seconds. One that
    takes too long is ended, and says where each of its threads was: on virtual machines whole
    processes have stood still in a page fault."""
    output, spent = Path(os.environ['TMPDIR'])/'output', forked.Value('d')
    process = forked.Process(target=inside, args=(notebook, flags, output, dict(os.environ), spent))
    process.start()
    process.join(limits[flags])
    stood_still = process.is_alive()
    for end in (signal.SIGABRT, signal.SIGKILL):
        if not process.is_alive(): break
        os.killpg(process.pid, end)
        process.join(20)
    lines = output.read_text(errors='replace').splitlines()
    said = '\n'.join(line for line in lines if not line.startswith('Extension modules:'))
    return 'stood still' if stood_still else process.exitcode and 'failed', said[-6000:], spent.value


def inside(notebook, flags, output, environ, spent):
    "What nbdev-test does, in the process of the notebook"
    os.setsid()
    multiprocessing.set_start_method(None, force=True) # the notebook's own processes start as they do everywhere
    os.chdir(root)
    os.environ.clear()
    os.environ.update(environ)
    tempfile.tempdir = None
    with open(output, 'wb') as f:
        for stream in (1, 2): os.dup2(f.fileno(), stream)
    faulthandler.enable()
    from nbdev.test import nbdev_test
    try: nbdev_test(str(notebook), flags=flags)
    finally: spent.value = sum(os.times()[:4])


@pytest.mark.parametrize('notebook', notebooks, ids=name)
def test_notebook(notebook, monkeypatch, record_property):
    if notebook.parent.name == 'course': monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    run(notebook, record_property)


@pytest.mark.slow
@pytest.mark.parametrize('notebook', flagged('slow'), ids=name)
def test_slow_cells(notebook, record_property): run(notebook, record_property, 'slow')


@pytest.mark.cuda
@pytest.mark.parametrize('notebook', flagged('cuda'), ids=name)
def test_cuda_cells(notebook, record_property): run(notebook, record_property, 'cuda')
