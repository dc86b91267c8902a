"""Whatever fails while files are read and written, nothing is lost, nothing is wrong in silence,
and one sentence says it.

`python tests/fault_table.py` counts."""
import contextlib
import http.server
import io
import itertools
import os
import re
import shutil
import sys
import tempfile
import threading
import zlib
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from PIL import Image

from colorgan.cli import main
from colorgan.colorizer import Colorizer
from colorgan.core import ColorganError, fetch, write_whole
from colorgan.engine.checkpoint import Checkpoints
from colorgan.engine.drive import Mirror, bring_back
from colorgan.engine.folder import RunFolder
from colorgan.nets.weights import load_tensors, save_model
from colorgan.photos.cache import make_cache
from colorgan.photos.refs import open_cache
from colorgan.recipes import replace
from colorgan.run import train
from colorgan.use.album import colorize_files

sys.path.insert(0, str(Path(__file__).parent))
from faults import NthFails, PowerLoss, errors, restored, watched  # noqa: E402

recipe = replace('pix2pix', size=32, bs=2, gen_kw=dict(base=4), critic_kw=dict(base=4, n_down=1),
                 pretrain_epochs=2, gan_epochs=1, ema=.9)
toy = Colorizer(lambda L: np.concatenate([L, -L], 1), 32)
blob = np.random.default_rng(0).bytes(300_000)


def quiet(f, *args, **kwargs):
    "What `f` returns, and what it printed"
    with contextlib.redirect_stdout(io.StringIO()) as said: result = f(*args, **kwargs)
    return result, said.getvalue()


def photos_in(folder, n=5):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), np.uint8)).save(folder/f'{i}.png')
    return folder


def tree(folder):
    files = (p for p in sorted(folder.rglob('*')) if p.is_file())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


class Whole:
    "A file that is replaced"
    def prepare(self, root): (root/'note').write_bytes(b'old')
    def act(self, root): write_whole(root/'note', b'new' * 1000)
    def judge(self, root, ended):
        content = (root/'note').read_bytes() if (root/'note').exists() else None
        if content not in (b'old', b'new' * 1000): yield 'lost', f'the file holds {content and content[:9]}'
        if ended and content == b'old': yield 'wrong', 'it says that it wrote and did not'
    def again(self, root):
        self.act(root)
        if (root/'note').read_bytes() != b'new' * 1000: yield 'wrong', 'the next run does not write'


class Cache:
    "Photos that are cached, with the user's own files beside it"
    mine = 'photos.cache.log', 'photos.cache.part'
    def prepare(self, root):
        photos_in(root/'photos')
        for name in self.mine: (root/name).write_text('a diary')
        self.sources = tree(root/'photos')
    def act(self, root): self.said = quiet(make_cache, root/'photos', root/'photos.cache', 32)[1]
    def judge(self, root, ended):
        if tree(root/'photos') != self.sources: yield 'lost', 'a photo'
        if any(not (root/n).exists() or (root/n).read_bytes() != b'a diary' for n in self.mine):
            yield 'lost', "the user's own file"
        if (root/'photos.cache').exists():
            try: n = len(open_cache(root/'photos.cache').check())
            except ColorganError: yield 'wrong', 'half a cache under its name'
            else:
                if n < 5 and f'{5 - n} could not be read' not in self.said:
                    yield 'wrong', 'a photo is left out in silence'
        elif ended: yield 'wrong', 'it ends without a cache'
    def again(self, root):
        self.act(root)
        yield from self.judge(root, True)


class Album:
    "An album that is colorized"
    def prepare(self, root):
        photos_in(root/'in')
        self.sources = tree(root/'in')
        if not hasattr(self, 'right'):
            quiet(colorize_files, root/'in', root/'right', toy)
            self.right = tree(root/'right')
            shutil.rmtree(root/'right')
    def act(self, root): self.report = colorize_files(root/'in', root/'out', toy)
    def judge(self, root, ended):
        if tree(root/'in') != self.sources: yield 'lost', 'a photo'
        out = {k: v for k, v in tree(root/'out').items() if not Path(k).name.startswith('.')}
        if any(self.right[k] != v for k, v in out.items()): yield 'wrong', 'half a photo under its name'
        if ended and len(out) + len(self.report.failed) < len(self.right):
            yield 'wrong', 'a photo is missing in silence'
        if ended and any('.png' not in f for f in self.report.failed):
            yield 'ugly', f'a failure without a name: {self.report.failed}'
    def again(self, root):
        self.act(root)
        yield from self.judge(root, True)
        if self.report.failed: yield 'wrong', 'the next run does not go on'


class Checkpoint:
    "A checkpoint more, of which two are kept, and then the newest is read"
    def state(self, i): return dict(step=i, w=torch.full((300,), float(i)))
    def prepare(self, root):
        c = Checkpoints(root/'checkpoints')
        for i in range(2): quiet(c.save, self.state(i), i)
    def act(self, root):
        c = Checkpoints(root/'checkpoints')
        quiet(c.save, self.state(2), 2)
        self.loaded = quiet(c.load)[0]
    def judge(self, root, ended):
        found = quiet(Checkpoints(root/'checkpoints').load)[0]
        if not found or found['step'] < 1: yield 'lost', 'the checkpoint that was there'
        if list((root/'checkpoints').glob('*.damaged')): yield 'lost', 'a whole checkpoint is taken for damaged'
        if ended and (not self.loaded or self.loaded['step'] < 1): yield 'wrong', 'an older state is loaded in silence'
    def again(self, root):
        self.act(root)
        if self.loaded['step'] != 2: yield 'wrong', 'the next run does not go on'


class Reading(Checkpoint):
    "The newest checkpoint is read"
    def act(self, root): self.loaded = quiet(Checkpoints(root/'checkpoints').load)[0]
    def again(self, root):
        self.act(root)
        if self.loaded['step'] != 1: yield 'lost', 'the newest checkpoint'


class Model:
    "A model that is saved over another one"
    def prepare(self, root):
        gen = self.gen = torch.nn.Linear(3, 3)
        torch.nn.init.zeros_(gen.weight)
        save_model(root/'model', gen, recipe)
        torch.nn.init.ones_(gen.weight)
    def act(self, root): save_model(root/'model', self.gen, recipe)
    def judge(self, root, ended):
        try: w = load_tensors(root/'model')['weight']
        except ColorganError: yield 'lost', 'the model that was there'
        else:
            if w.unique().numel() != 1: yield 'wrong', 'a mixture of two models'
            if ended and w.sum() != 9: yield 'wrong', 'it says that it saved and did not'
    def again(self, root):
        self.act(root)
        yield from self.judge(root, True)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        start = int(self.headers['Range'][6:-1])
        self.send_response(206)
        self.send_header('Content-Length', str(len(blob) - start))
        self.send_header('ETag', '"1"')
        self.end_headers()
        self.wfile.write(blob[start:])
    def log_message(self, *args): pass


class Download:
    "A file that is downloaded"
    def __init__(self):
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
    def prepare(self, root): pass
    def act(self, root): fetch(f'http://127.0.0.1:{self.server.server_port}/x', root/'x')
    def judge(self, root, ended):
        there = (root/'x').exists()
        if there and (root/'x').read_bytes() != blob: yield 'wrong', 'half a file under its name'
        if ended and not there: yield 'wrong', 'it ends without a file'
    def again(self, root):
        self.act(root)
        yield from self.judge(root, True)


class Drive:
    "A run that is mirrored, and brought back to another machine"
    run = {'run.json': b'{"recipe": {"name": "x"}}', 'log.jsonl': b'{"epoch": 0}\n',
           'checkpoints/0000000007.pt': blob[:9000]}
    def prepare(self, root):
        restored(self.run, root/'near')
        restored(self.run | {'checkpoints/0000000003.pt': b'older'}, root/'drive'/'run')
        (root/'drive'/'run'/'checkpoints'/'0000000007.pt').unlink()
    def act(self, root):
        self.mirrored, self.said = quiet(Mirror(root/'near', root/'drive'/'run').look)
        if self.mirrored: quiet(bring_back, root/'drive'/'run', root/'other')
    def judge(self, root, ended):
        if tree(root/'near') != self.run: yield 'lost', 'a file on this machine'
        far = tree(root/'drive'/'run')
        whole = {'checkpoints/0000000003.pt': b'older', 'checkpoints/0000000007.pt': blob[:9000]}
        if not any(far.get(k) == v for k, v in whole.items()): yield 'lost', 'the checkpoint on Drive'
        if any(far[k] != v for k, v in (self.run | whole).items() if k in far): yield 'wrong', 'half a file on Drive'
        if ended and not (self.mirrored or 'cannot be written now' in self.said):
            yield 'wrong', 'not mirrored, in silence'
        if ended and self.mirrored and tree(root/'other') != self.run: yield 'wrong', 'not brought back, in silence'
    def again(self, root):
        self.act(root)
        yield from self.judge(root, True)
        if not self.mirrored: yield 'wrong', 'the next look does not mirror'


class Training:
    "A training that is resumed, from the middle of its first stage to the end: the weights are those of one left alone"
    words = dict(device='cpu', checkpoint_minutes=0)
    def __init__(self):
        self.begun = Path(tempfile.mkdtemp())/'begun'
        alone = self.begun.with_name('alone')
        quiet(train, 'bundled', recipe, alone, **self.words)
        self.right = self.weights(alone)
        class Stop(BaseException): pass
        def stop(kind, path, function, *args, **kwargs):
            result = function(*args, **kwargs)
            if kind == 'rename' and path.endswith('.part') and '0000000003' in path: raise Stop
            return result
        with watched(self.begun.parent, stop), contextlib.suppress(Stop):
            quiet(train, 'bundled', recipe, self.begun, **self.words)
        assert list((self.begun/'checkpoints').glob('*.pt')) and not (self.begun/'model').exists()
    def weights(self, run): return zlib.crc32(b''.join(t.numpy().tobytes() for t in load_tensors(run).values()))
    def prepare(self, root): shutil.copytree(self.begun, root/'run')
    def act(self, root): self.said = quiet(train, 'bundled', recipe, root/'run', resume=True, **self.words)[1]
    def judge(self, root, ended):
        if ended and self.weights(root/'run') != self.right: yield 'wrong', 'other weights'
    def again(self, root):
        self.act(root)
        yield from self.judge(root, True)


kinds = dict(whole=Whole, model=Model, checkpoint=Checkpoint, reading=Reading, download=Download,
             drive=Drive, cache=Cache, album=Album, training=Training)


def one(scenario, fault, root):
    "Make one fault happen; yields what went wrong, as `(kind, sentence)`"
    scenario.prepare(root)
    ended = False
    try:
        with watched(root, fault): scenario.act(root)
        ended = True
    except (ColorganError, MemoryError): pass
    except OSError as e:
        if not e.filename: yield 'ugly', f'no file is named: {e}'
    except Exception as e: yield 'ugly', f'{type(e).__name__}: {e}'
    yield from scenario.judge(root, ended)
    fault.n, fault.forever = 0, False
    try: yield from scenario.again(root)
    except Exception as e: yield 'lost', f'the next run does not go on: {type(e).__name__}: {e}'


def injected(name, every=1, numbers=tuple(errors), forever=(False, True)):
    "All faults of a kind, or every so many; how many there were, and `(kind, fault, sentence)` for what went wrong"
    scenario, count, found = kinds[name](), 0, []
    with tempfile.TemporaryDirectory() as folder:
        calls = NthFails(0, 0)
        (root := Path(folder)/'all').mkdir()
        scenario.prepare(root)
        with watched(root, calls): scenario.act(root)
        tasks = [(n, number, f) for i, n in enumerate(range(1, calls.count + 1))
                 for j, number in enumerate(numbers) for f in forever
                 if (i + j) % every == 0]
        for n, number, f in tasks:
            (root := Path(folder)/f'{n} {number} {f}').mkdir()
            fault = NthFails(n, errors[number], f)
            found += [(kind, f'{number}{" for ever" if f else ""}, {fault.what}', text)
                      for kind, text in one(scenario, fault, root)]
            shutil.rmtree(root)
            count += 1
    return count, found


@pytest.mark.parametrize('name, every', [('whole', 1), ('model', 1), ('checkpoint', 2),
                                         ('reading', 1), ('download', 2), ('drive', 5),
                                         ('cache', 7), ('album', 9)])
def test_faults(name, every):
    count, found = injected(name, every)
    assert count > 10 and not found, '\n'.join(map(str, found))


@pytest.mark.slow
@pytest.mark.parametrize('name', [k for k in kinds if k != 'training'])
def test_every_fault(name):
    count, found = injected(name)
    assert count > 20 and not found, '\n'.join(map(str, found))


@pytest.mark.slow
def test_faults_in_a_training():
    count, found = injected('training', 7, forever=(False,))
    assert count > 20 and not found, '\n'.join(map(str, found))


@pytest.fixture(scope='module')
def training(): return Training()


@pytest.mark.parametrize('name, content', [('run.json', b''), ('run.json', b'{"recipe": {"na'),
                                           ('run.json', None), ('log.jsonl', b''),
                                           ('log.jsonl', b'{"stage": "pretr'),
                                           ('log.jsonl', b'\xff\xfe')], ids=str)
def test_half_files_do_not_stop_a_resume(name, content, training, tmp_path):
    training.prepare(tmp_path)
    log = (tmp_path/'run'/'log.jsonl').read_text()
    if content is None: (tmp_path/'run'/name).unlink()
    else: (tmp_path/'run'/name).write_bytes(content)
    training.act(tmp_path)
    assert training.weights(tmp_path/'run') == training.right
    lines = (tmp_path/'run'/'log.jsonl').read_text()
    assert lines.startswith(log) and lines.count('\n') == 3 and RunFolder(tmp_path/'run').settings()['finished']


def test_settings_of_a_checkpoint_are_compared(training, tmp_path):
    training.prepare(tmp_path)
    (tmp_path/'run'/'run.json').write_bytes(b'')
    with pytest.raises(ColorganError, match='was begun with seed 42, not 1'):
        quiet(train, 'bundled', recipe, tmp_path/'run', resume=True, seed=1, **training.words)
    (tmp_path/'run'/'run.json').write_bytes(b'')
    with pytest.raises(ColorganError, match='run.json is damaged'):
        quiet(train, 'bundled', recipe, tmp_path/'run', **training.words)


def test_disk_that_is_full_for_a_while(training, tmp_path):
    """Until the second stage nothing but small files can be written. That is said once for
    checkpoints and once for the rest, and at the end all is there."""
    training.prepare(tmp_path)
    full = True
    def watch(kind, path, function, *args, **kwargs):
        nonlocal full
        full = full and not Path(path).name.startswith('progress')
        if kind == 'write' and full and args and len(args[0]) > 5000:
            raise OSError(errors['ENOSPC'], 'No space left on device', path)
        return function(*args, **kwargs)
    run = tmp_path/'run'
    def report(self, **progress):
        nonlocal full
        full = progress['stage'] == 'pretrain'
    with patch.object(RunFolder, 'report', report), watched(tmp_path, watch): training.act(tmp_path)
    assert training.weights(run) == training.right
    assert (run/'checkpoints'/'best.safetensors').exists()
    assert (run/'sheets'/'pretrain-001.png').exists() and (run/'sheet.png').exists()
    assert training.said.count('No checkpoint could be written') == 1
    assert training.said.count('the training goes on, and this is written when it is possible') == 1


def test_model_that_cannot_be_written_is_saved_elsewhere(training, tmp_path):
    training.prepare(tmp_path)
    def watch(kind, path, function, *args, **kwargs):
        if f'{os.sep}model' in path and kind in ('open', 'mkdir'):
            raise OSError(errors['ENOSPC'], 'No space left on device', path)
        return function(*args, **kwargs)
    with (watched(tmp_path/'run', watch),
          pytest.raises(ColorganError, match='the model is in .*: copy it') as e):
        training.act(tmp_path)
    elsewhere = Path(re.search('the model is in (.*): copy it', str(e.value))[1])
    assert training.weights(elsewhere) == training.right
    shutil.rmtree(elsewhere.parent)
    assert list(training.again(tmp_path)) == []


def test_what_another_version_wrote_is_not_damaged(tmp_path):
    c = Checkpoints(tmp_path)
    quiet(c.save, dict(step=0), 0)
    torch.save(dict(step=Recorder()), tmp_path/'0000000001.pt')
    with pytest.raises(ColorganError, match='is whole, but this version cannot read it'): c.load()
    assert [f.name for f in c.files()] == ['0000000000.pt', '0000000001.pt'] == sorted(os.listdir(tmp_path))


def test_what_is_damaged_is_moved_aside(tmp_path):
    "Only a wrong checksum is damage, and not even that is deleted."
    c = Checkpoints(tmp_path)
    for i in range(2): quiet(c.save, dict(step=i), i)
    content = bytearray(c.files()[-1].read_bytes())
    content[len(content) // 2] ^= 1
    c.files()[-1].write_bytes(content)
    state, said = quiet(c.load)
    assert state['step'] == 0 and 'now called 0000000001.pt.damaged; the checkpoint before it is taken' in said
    assert (tmp_path/'0000000001.pt.damaged').read_bytes() == content
    assert [f.name for f in c.files()] == ['0000000000.pt']


def test_a_clock_that_jumps_ends_nothing(tmp_path, monkeypatch):
    """A stage of a minute and checkpoints every five: a clock on the wall that goes hours forth and
    back counts for neither."""
    jumps = itertools.cycle([0, 1e5, -1e5])
    monkeypatch.setattr('time.time', lambda: 1.7e9 + next(jumps))
    steps = []
    class Stop(Callback):
        def after_batch(self):
            steps.append(self.train_iter)
            if self.train_iter == 8: raise KeyboardInterrupt('enough')
    with pytest.raises(KeyboardInterrupt, match='enough'):
        quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', pretrain_minutes=1,
              checkpoint_minutes=5, cbs=Stop())
    assert steps[-1] == 8 and not list((tmp_path/'run'/'checkpoints').glob('*.pt'))


class Recorder: "A class that no checkpoint may hold"


@pytest.mark.parametrize('keep', [0, -1, 1.5])
def test_keeping_no_checkpoint_is_refused(keep, tmp_path):
    with pytest.raises(ColorganError, match='keep cannot be'): train('bundled', recipe, tmp_path/'run', keep=keep)
    assert not (tmp_path/'run').exists()


def test_one_odd_run_does_not_hide_the_others(tmp_path, capsys):
    for name, content in dict(good='{"recipe": {"name": "light"}}', odd='{"recipe":').items():
        (tmp_path/name).mkdir()
        (tmp_path/name/'run.json').write_text(content)
    assert main(['status', str(tmp_path/'odd'), str(tmp_path/'good')]) == 1
    said = capsys.readouterr()
    assert 'begun (light)' in said.out and 'odd/run.json is damaged' in said.err


def test_clock_that_is_ahead_is_no_sign_of_life(tmp_path):
    (tmp_path/'run.json').write_text('{"recipe": {"name": "light"}}')
    (tmp_path/'progress.json').write_text('{"host": "elsewhere", "time": 9e9}')
    assert RunFolder(tmp_path).state()[0] == 'interrupted'


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    photos_in(tmp_path/'photos')
    for end in 'part', 'log':
        mine = tmp_path/f'photos.cache.colorgan-{end}'
        mine.write_text('a diary')
        with pytest.raises(ColorganError, match='is not what remained of a cache'):
            quiet(make_cache, tmp_path/'photos', tmp_path/'photos.cache', 32)
        assert mine.read_text() == 'a diary'
        mine.unlink()


def test_drive_that_holds_a_damaged_run_json_is_not_overwritten(tmp_path):
    restored(Drive.run | {'run.json': b''}, tmp_path/'drive')
    quiet(bring_back, tmp_path/'drive', tmp_path/'near')
    assert tree(tmp_path/'near') == Drive.run | {'run.json': b''}


def test_near_side_that_is_gone_takes_nothing_with_it(tmp_path):
    restored(Drive.run, tmp_path/'drive'/'run')
    assert not quiet(Mirror(tmp_path/'near', tmp_path/'drive'/'run').look)[0]
    assert tree(tmp_path/'drive'/'run') == Drive.run


def test_faults_are_found():
    "The harness sees what a careless writer does."
    class Careless(Whole):
        def act(self, root): (root/'note').write_bytes(b'new' * 1000)
    kinds['careless'] = Careless
    try: found = injected('careless', numbers=('EIO',), forever=(False,))[1]
    finally: del kinds['careless']
    assert any(kind == 'lost' for kind, *_ in found)


def after_power_loss(scenario, root):
    "What is on the disk after a power cut at any moment of `act`, each once"
    root.mkdir()
    scenario.prepare(root)
    disk, returned = PowerLoss(root), []
    with watched(root, disk): scenario.act(root)
    returned.append(disk.pictures[-1]) # names of flushed folders only, when it said that it was done
    disk.close()
    seen = {tuple(sorted(p.items())): p for p in disk.pictures}
    return list(seen.values()), returned[0]


def cut(name):
    """All disks that a power cut may leave while this kind works; how many there are, and what is
    wrong with them as `injected` says it"""
    scenario, found = kinds[name](), []
    with tempfile.TemporaryDirectory() as folder:
        pictures, last = after_power_loss(scenario, Path(folder)/'disk')
        disks = [(p, False) for p in pictures] + [(last, True)]
        for i, (picture, ended) in enumerate(disks):
            (root := Path(folder)/str(i)).mkdir()
            restored(picture, root)
            looks = (lambda: scenario.judge(root, ended)), (lambda: scenario.again(root)) # noqa: B023
            try: found += [(kind, f'power cut {i}', text) for f in looks for kind, text in f()]
            except Exception as e:
                found.append(('lost', f'power cut {i}',
                              f'the next run does not go on: {type(e).__name__}: {e}'))
    return len(disks), found


@pytest.mark.parametrize('name', ['whole', 'model', 'checkpoint', 'drive', 'download', 'cache', 'album'])
def test_power_cuts(name):
    count, found = cut(name)
    assert count > 2 and not found, '\n'.join(map(str, found))


def test_power_loss_while_a_file_is_replaced(tmp_path):
    pictures, last = after_power_loss(Whole(), tmp_path/'disk')
    assert len(pictures) > 1 and {p.get('note') for p in pictures} == {b'old', b'new' * 1000}
    assert last['note'] == b'new' * 1000


def test_power_loss_while_a_checkpoint_is_written(tmp_path):
    pictures, last = after_power_loss(Checkpoint(), tmp_path/'disk')
    steps = [quiet(Checkpoints(restored(p, tmp_path/str(i))/'checkpoints').load)[0]['step']
             for i, p in enumerate(pictures)]
    assert set(steps) == {1, 2}
    assert quiet(Checkpoints(restored(last, tmp_path/'last')/'checkpoints').load)[0]['step'] == 2


def test_power_loss_while_a_cache_is_made(tmp_path):
    pictures, last = after_power_loss(Cache(), tmp_path/'disk')
    assert len(open_cache(restored(last, tmp_path/'last')/'photos.cache').check()) == 5
    for i, p in enumerate(pictures):
        if 'photos.cache' not in p: continue
        disk = restored({'c': p['photos.cache']}, tmp_path/str(i))
        assert len(open_cache(disk/'c').check()) == 5


def test_power_loss_while_a_file_is_downloaded(tmp_path):
    pictures, last = after_power_loss(Download(), tmp_path/'disk')
    assert last['x'] == blob and all(p.get('x', blob) == blob for p in pictures)
