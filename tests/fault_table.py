"""Kinds of faults, how many were injected, and after how many of them something was lost, wrong in silence, or ugly:

    python tests/fault_table.py --every 10 --before 81d943d^

makes the table in FAULTS.md. `--before` injects the same faults into that commit, with the harness
of today; `--every 10` takes every tenth fault in reading and writing, and every two hundredth of a
training. Without either, all are injected (of a training, every twentieth), and only here.

*Lost*: something of the user's is gone or damaged, or the next run does not go on. *Wrong*: a
result that is not right, or a stranger let in, without a word. *Ugly*: something else than one
sentence."""
import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections import Counter
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

# small networks wait for a second thread longer than it helps
os.environ.update(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
here = Path(__file__).resolve().parent
sys.path[:0] = [str(here)]
import test_faults  # noqa: E402
from test_colorize import good_files  # noqa: E402
from test_faults import ColorganError, colorize_files, fetch, kinds, quiet, toy, tree  # noqa: E402
from colorgan.photos.files import read_photo  # noqa: E402
from colorgan.photos.sources import unpack  # noqa: E402

blob, other = (np.random.default_rng(i).bytes(400_000) for i in (0, 1))


class Server:
    "A server that misbehaves in one way"
    def __init__(self, content=blob, **how):
        from test_strangers import serving
        self.serving, self.how = serving, dict(content=content) | how
    def ask(self, folder, part=None, tag=None, threads=1):
        "What lies under the file's name afterwards, if anything, and whether it took longer than twenty seconds"
        if part: (folder/'x.part').write_bytes(part)
        if tag: (folder/'x.part.tag').write_text(tag)
        def get():
            with suppress(ColorganError): fetch(server.url, folder/'x', timeout=2) # what lies there afterwards counts
        with self.serving(**self.how) as server:
            several = [threading.Thread(target=get, daemon=True) for _ in range(threads)]
            for t in several: t.start()
            for t in several: t.join(20)
            late = any(t.is_alive() for t in several)
        return (folder/'x').read_bytes() if (folder/'x').exists() else None, late


def servers(folder):
    "Servers that change their file, cut it off, or are slow"
    cases = dict(changed=(Server(other, tag='"2"'), dict(part=blob[:150_000], tag='"1"'), other),
                 untagged=(Server(other, tag=None), dict(part=blob[:150_000]), other),
                 longer=(Server(), dict(part=blob + b'more', tag='"1"'), blob),
                 cut=(Server(length=False, cut=100_000), {}, blob),
                 slow=(Server(pause=.05), {}, blob),
                 several=(Server(), dict(threads=8), blob))
    for name, (server, how, right) in cases.items():
        (place := folder/name).mkdir()
        content, late = server.ask(place, **how)
        wrong = [] if content in (None, right) else ['a file that no server has']
        if late: wrong.append('it waits for ever')
        yield name, [('wrong', text) for text in wrong]


def archives(folder):
    "Archives that unfold to a thousand times their size"
    with zipfile.ZipFile(folder/'a.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('zeros', bytes(60_000_000))
    (folder/'zeros').write_bytes(bytes(60_000_000))
    with tarfile.open(folder/'a.tgz', 'w:gz') as t: t.add(folder/'zeros', 'zeros')
    for name in 'a.zip', 'a.tgz':
        try: unpack(folder/name, folder/f'{name} unpacked')
        except ColorganError: yield name, []
        else: yield name, [('wrong', 'it unfolds without limit')]


def mutated_photos(folder, n=400):
    "Photos of all formats with a few bytes changed"
    files, rng = sorted(good_files().items()), np.random.default_rng(0)
    for i in range(n):
        name, content = files[i % len(files)]
        content = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            at = rng.integers(0, len(content))
            content[at:at + rng.integers(0, 9)] = rng.bytes(rng.integers(0, 7))
        try: mode = read_photo(bytes(content)).image.mode
        except ColorganError as e: yield name, [('ugly', 'several lines')] if '\n' in str(e) else []
        except Exception as e: yield name, [('ugly', type(e).__name__)]
        else: yield name, [] if mode in ('L', 'RGB') else [('wrong', f'mode {mode}')]


def tiff(values):
    out = io.BytesIO()
    Image.fromarray(np.asarray(values, np.float32)).save(out, 'TIFF')
    return out.getvalue()


def odd_photos(folder):
    "Photos whose numbers mean something else than they seem, and what they should be"
    grey = np.full((40, 40), .5)
    over = grey.copy()
    over[0, 0] = 1.02
    for name, values in dict(plain=grey, overshoot=over).items():
        try: level = np.median(np.asarray(read_photo(tiff(values)).image.convert('L')))
        except ColorganError: yield name, []
        else: yield name, [] if 100 < level < 200 else [('wrong', f'a grey of 128 becomes {level:.0f}')]
    for name, values in dict(nan=np.full((40, 40), np.nan), some=np.where(over > 1, np.nan, over)).items():
        try: read_photo(tiff(values))
        except ColorganError: yield name, []
        else: yield name, [('wrong', 'numbers that are none become a photo')]
    (album := folder/'album').mkdir()
    for i in range(3): Image.new('RGB', (40, 30), (9, 99, 200)).save(album/f'{i}.tif', dpi=(72, 72))
    content = (album/'1.tif').read_bytes()
    (album/'1.tif').write_bytes(content.replace((72).to_bytes(4, 'little') + (1).to_bytes(4, 'little'), bytes(8)))
    (album/'2.heic').write_bytes(b'not read')
    try: report = colorize_files(album, folder/'out', toy, progress=False)
    except ColorganError as e: yield 'resolution', [] if '1.tif' in str(e) else [('ugly', f'no photo is named: {e}')]
    except Exception as e: yield 'resolution', [('ugly', f'one photo ends the album: {type(e).__name__}')]
    else:
        all_there = report.done + len(report.failed) == 3
        yield 'resolution', [] if all_there else [('wrong', 'a photo is missing in silence')]
        said = any('2.heic' in str(name) for name in getattr(report, 'left', []))
        yield 'heic', [] if said else [('wrong', 'what is left alone is not said')]
    (mine := folder/'mine').mkdir()
    for name in 'appl.jpg', 'apple.jpg': Image.new('RGB', (40, 30), (9, 99, 200)).save(mine/name)
    try: report = colorize_files(mine, folder/'out2', toy, suffix='e', progress=False)
    except ColorganError: yield 'suffix', []
    else: yield 'suffix', [] if len(tree(folder/'out2')) == 2 else [('wrong', 'a photo is taken for a result')]


def counted(f):
    "A row for cases that a generator of `(name, [(kind, sentence)])` makes"
    with tempfile.TemporaryDirectory() as folder: cases = list(f(Path(folder)))
    return len(cases), [(kind, f'{name} {i}', text) for i, (name, found) in enumerate(cases) for kind, text in found]


def rows(every):
    "All kinds of faults: a title, and a function that injects them"
    for name, kind in kinds.items():
        yield kind.__doc__, lambda name=name: test_faults.injected(name, every * (20 if name == 'training' else 1))
    for name in 'whole', 'model', 'checkpoint', 'download', 'drive', 'cache', 'album':
        yield f'{kinds[name].__doc__}: power cuts', lambda name=name: test_faults.cut(name)
    for f in servers, archives, mutated_photos, odd_photos: yield f.__doc__, lambda f=f: counted(f)


def measure(every, patience=900):
    "A list of `(title, injected, {'lost': …, 'wrong': …, 'ugly': …}, sentences)`; None for what cannot be injected"
    def late(*args): raise TimeoutError(f'not done after {patience} seconds')
    signal.signal(signal.SIGALRM, late)
    for title, inject in rows(every):
        print(f'{title} …', file=sys.stderr, flush=True)
        signal.alarm(patience)
        try: n, found = quiet(inject)[0]
        except Exception as e: yield title, None, {}, [f'{type(e).__name__}: {" ".join(str(e).split())[:150]}']
        else:
            counts = {kind: len({fault for k, fault, _ in found if k == kind}) for kind in ('lost', 'wrong', 'ugly')}
            # without the folders of this machine
            said = Counter((kind, re.sub(r'/\S*/', '', ' '.join(text.split()))[:90]) for kind, _, text in set(found))
            yield title, n, counts, [f'{kind}: {text} ({k})' for (kind, text), k in said.most_common(4)]
        finally: signal.alarm(0)


def measured_in(commit, every):
    "The same in another commit, with this harness"
    with tempfile.TemporaryDirectory() as folder:
        archive = subprocess.run(['git', '-C', here.parent, 'archive', commit], capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as t: t.extractall(folder, filter='data')
        for f in ('faults.py', 'fault_table.py', 'test_faults.py', 'test_strangers.py',
                  'test_colorize.py'):
            (Path(folder)/'tests'/f).write_bytes((here/f).read_bytes())
        command = [sys.executable, 'tests/fault_table.py', '--every', str(every), '--json']
        done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True,
                              env=os.environ | dict(PYTHONPATH=folder))
    return json.loads(done.stdout)


def table(now, before=None):
    "Markdown"
    kinds_of = 'lost', 'wrong', 'ugly'
    def cells(row): return ['-'] * 3 if row[1] is None else [str(row[2][k]) for k in kinds_of]
    head = ['kind of fault', 'injected', *kinds_of]
    if before is not None: head[1:1] = ['injected before', *(f'{k} before' for k in kinds_of)]
    yield '| ' + ' | '.join(head) + ' |'
    yield '|---' * len(head) + '|'
    for i, row in enumerate(now):
        old = [] if before is None else [str(before[i][1] or '-'), *cells(before[i])]
        yield '| ' + ' | '.join([row[0], *old, str(row[1] or '-'), *cells(row)]) + ' |'
    for title, results in ('Before', before or []), ('Now', now):
        said = [f'- {row[0]}: {text}' for row in results for text in row[3]]
        if said: yield '\n'.join(['', f'{title}, what went wrong, and how often:', '', *said])


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--every', type=int, default=1)
    parser.add_argument('--before', metavar='COMMIT')
    parser.add_argument('--json', action='store_true', help='results as data')
    args = parser.parse_args()
    now = list(measure(args.every))
    if args.json: print(json.dumps(now))
    else: print(*table(now, measured_in(args.before, args.every) if args.before else None), sep='\n')
