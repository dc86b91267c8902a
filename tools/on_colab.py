"""The notebooks as a student opens them on Colab: the wheel, installed as their first cell does it,
no nbdev, no clone, a stand-in for Drive.

`PYTHON tools/on_colab.py dist nbs`, with the Python of an environment that has Colab's versions;
`make colab` makes one."""
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

execute = runpy.run_path(str(Path(__file__).with_name('run.py')))['execute']
drive = """
import os
from pathlib import Path
def mount(place, **kwargs):
    if os.environ.get('DRIVE') == 'refused': raise ValueError('mount failed')
    (Path(place)/'MyDrive').mkdir(parents=True, exist_ok=True)
"""


def freeze():
    return set(subprocess.run([sys.executable, '-m', 'pip', 'freeze'], capture_output=True,
                              text=True, check=True).stdout.splitlines())


def install(wheels):
    "Install colorgan from the folder `wheels`; the lines of `pip freeze` that this changed."
    before = freeze()
    subprocess.run([sys.executable, '-m', 'pip', 'install', '-q', 'colorgan'], check=True,
                   env={**os.environ, 'PIP_FIND_LINKS': str(Path(wheels).resolve())})
    return before - freeze()


def stand_in(folder):
    "A `google.colab` in `folder`, whose Drive is a folder."
    (folder/'google'/'colab').mkdir(parents=True)
    (folder/'google'/'colab'/'__init__.py').touch()
    (folder/'google'/'colab'/'drive.py').write_text(drive)


def attempt(job):
    "One line on a notebook, run with Drive mounted or refused; and whether it ran through."
    path, mode = job
    begun, command = time.time(), [sys.executable, __file__, 'one', str(path)]
    done = subprocess.run(command, capture_output=True, text=True,
                          env={**os.environ, 'DRIVE': mode})
    reason = '' if done.returncode == 0 else '\n' + (done.stdout + done.stderr)[-3000:]
    print(f"{'FAILED' if reason else 'PASSED'} {path.stem}, Drive {mode}, "
          f"{time.time() - begun:.0f} s{reason}", flush=True)
    return not reason


def main(wheels, notebooks):
    changed = install(wheels)
    if changed:
        sys.exit("`pip install colorgan` changed what was preinstalled: "
                 f"{', '.join(sorted(changed))}")
    with tempfile.TemporaryDirectory() as folder:
        stand_in(Path(folder)/'stand-in')
        os.environ.update(PYTHONPATH=str(Path(folder)/'stand-in'), OMP_NUM_THREADS='1')
        shutil.copytree(notebooks, Path(folder)/'nbs')
        books = [p for p in sorted((Path(folder)/'nbs').rglob('*.ipynb'))
                 if '.ipynb_checkpoints' not in p.parts]
        jobs = [(p, mode) for p in books for mode in ('mounted', 'refused')
                if mode == 'mounted' or 'workspace(' in p.read_text(encoding='utf-8')]
        with ThreadPoolExecutor(os.cpu_count()) as pool: passed = list(pool.map(attempt, jobs))
    print(f'{sum(passed)} passed, {len(passed) - sum(passed)} failed')
    return 0 if all(passed) else 1


if __name__ == '__main__':
    if sys.argv[1] == 'one': execute(Path(sys.argv[2]))
    else: sys.exit(main(*sys.argv[1:]))
