"""A training in company: several processes, trackers, a Drive that goes away, a terminal that shows how far it is."""
import csv
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import pytest
import torch
from fastai.callback.core import Callback

from colorgan import run as run_module
from colorgan.cli import main
from colorgan.critic import create_critic
from colorgan.data import get_dls
from colorgan.engine import drive
from colorgan.engine.callbacks import ColourMetrics, tracked
from colorgan.engine.checkpoint import StartAt
from colorgan.engine.drive import mirrored
from colorgan.engine.folder import RunFolder
from colorgan.engine.learner import Clock
from colorgan.gan import gan_learner
from colorgan.generator import create_gen
from colorgan.core import ColorganError
from colorgan.loss import gradient_penalty
from colorgan.pretrain import pretrain_learner
from colorgan.nets.weights import load_tensors
from colorgan.recipes import replace
from colorgan.run import train
from colorgan.engine.distributed import DistributedAverage, rank, shard_dls, process_group

recipe = replace('pix2pix', size=32, bs=2, gen_kw=dict(base=4, norm='instance', dropout=0.),
                 critic_kw=dict(base=4, n_down=1, norm='instance'),
                 pretrain_epochs=2, gan_epochs=2, schedule='cosine', ema=.9)
cpu = torch.device('cpu')


def quietly(data='bundled', recipe=recipe, **kwargs):
    with redirect_stdout(io.StringIO()): return train(data, recipe, device='cpu', **kwargs)


def same(a, b):
    return all(torch.equal(p, q)
               for p, q in zip(load_tensors(a).values(), load_tensors(b).values(),
                               strict=True))


class Grads(Callback):
    "Keep the gradients of the first steps, as they are when all processes have agreed on them."
    order = -8
    def before_fit(self): self.kept = []
    def after_backward(self): self.kept.append([p.grad.clone() for p in self.model.parameters()])


def first_gradients(make, bs, out):
    with process_group(cpu):
        torch.manual_seed(0)
        learn, grads = make(shard_dls(get_dls('bundled', 32, bs, device='cpu')),
                            replace(recipe, lam=1.)), Grads()
        with learn.no_bar(), learn.no_logging():
            learn.fit(2, cbs=[grads] + ([DistributedAverage()] if bs == 2 else []))
        if not rank(): torch.save(grads.kept, out)


def processes(work, *args, n=2):
    "Call `work` in `n` processes that a launcher's environment connects; their exit codes."
    with socket.socket() as s:
        s.bind(('localhost', 0))
        port = s.getsockname()[1]
    ps = []
    for i in range(n):
        env = dict(RANK=i, LOCAL_RANK=i, WORLD_SIZE=n, MASTER_ADDR='localhost', MASTER_PORT=port)
        ps.append(multiprocessing.get_context('forkserver').Process(target=launched,
                                                                    args=(env, work, *args)))
        ps[-1].start()
    for p in ps: p.join(120)
    for p in ps:
        if p.is_alive(): p.kill()
    return [p.exitcode for p in ps]


def launched(env, work, *args):
    os.environ |= {k: str(v) for k, v in env.items()}
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, 'w')
    work(*args)


@pytest.mark.parametrize('make', [pretrain_learner, gan_learner], ids=['pixel loss', 'adversarial'])
def test_two_processes_take_the_step_of_one_with_the_joint_batch(make, tmp_path):
    first_gradients(make, 4, tmp_path/'one')
    assert processes(first_gradients, make, 2, tmp_path/'two') == [0, 0]
    one, two = (torch.load(tmp_path/f) for f in ('one', 'two'))
    assert len(one) == len(two) == 2
    for a, b in zip(one[0], two[0], strict=True):
        assert a.abs().max() > 0 and (a - b).abs().max() <= 1e-6
    for a, b in zip(one[1], two[1], strict=True):
        assert (a - b).abs().max() <= 1e-6 + 1e-4 * a.abs().max()


def train_in_company(folder, minutes=None):
    "Each process is told a folder of its own: that of the second one must not appear."
    train('bundled', recipe, folder/f'run{rank_of_launcher()}', device='cpu', resume=True,
          checkpoint_minutes=0, gan_minutes=minutes)


def rank_of_launcher(): return os.environ['RANK']


def test_only_the_first_process_writes(tmp_path):
    assert processes(train_in_company, tmp_path) == [0, 0]
    assert [p.name for p in tmp_path.iterdir()] == ['run0']
    lines = [json.loads(line) for line in (tmp_path/'run0'/'log.jsonl').read_text().splitlines()]
    assert [(d['stage'], d['epoch'], d['photos'])
            for d in lines] == [('pretrain', 0, 4), ('pretrain', 1, 8), ('gan', 0, 4),
            ('gan', 1, 8)]
    assert json.loads((tmp_path/'run0'/'run.json').read_text())['finished']


def test_processes_agree_when_time_is_up(tmp_path):
    assert processes(partial(train_in_company, minutes=.03), tmp_path) == [0, 0]
    assert json.loads((tmp_path/'run0'/'run.json').read_text())['finished']


def test_what_the_first_process_refuses_all_refuse(tmp_path):
    (tmp_path/'run0').mkdir()
    (tmp_path/'run0'/'run.json').write_text('{"recipe": {"bs": 16}}')
    assert processes(train_in_company, tmp_path) == [1, 1]


@pytest.mark.slow
def test_accelerate_launch(tmp_path):
    scripts = Path(sys.executable).parent
    words = '--recipe light-plain --size 64 --bs 2 --pretrain-epochs 1 --gan-epochs 1 --device cpu'.split()
    launch = [scripts/'accelerate', 'launch',
              *'--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no '
               '--dynamo_backend no --no_python'.split()]
    done = subprocess.run([*launch, scripts/'colorgan', 'train', 'bundled', '--out',
                           tmp_path/'run', *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path/'run'/'log.jsonl').read_text().splitlines()]
    assert [(d['stage'], d['photos']) for d in lines] == [('pretrain', 4),
                                                          ('gan', 4)], 'the joint batch is 4'


def wandb_keys(path):
    """The names of all that a run of Weights & Biases, kept offline, holds: records in pieces,
    in blocks of 32 KB, as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record
    data, at, whole, keys = path.read_bytes(), 7, b'', set()
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        n, piece = int.from_bytes(data[at + 4:at + 6], 'little'), data[at + 6]
        if at + 7 + n > len(data): break # it is still being written
        whole, at = whole + data[at + 7:at + 7 + n], at + 7 + n
        if piece in (1, 4): # the whole record, or its last piece
            (record := Record()).ParseFromString(whole)
            keys, whole = keys | {i.key or i.nested_key[0] for i in record.history.item}, b''
    return keys


def test_trackers(tmp_path, monkeypatch):
    "The real packages, offline: figures and sheets of both stages are where each of them keeps such things."
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    monkeypatch.setenv('WANDB_MODE', 'offline')
    run = quietly(out=tmp_path/'run', track='tensorboard,wandb,csv')
    for stage, figures in dict(pretrain={'train_loss', 'ab_error', 'watched_psnr'},
                               gan={'adversarial', 'critic', 'ab_error'}).items():
        tags = EventAccumulator(str(run/'tensorboard'/stage)).Reload().Tags()
        assert figures <= set(tags['scalars']) and tags['images'] == ['samples']
        with open(run/f'{stage}.csv') as f: rows = list(csv.DictReader(f))
        assert [int(r['epoch']) for r in rows] == [0, 1] and figures <= rows[0].keys()
    record, = run.glob('wandb/offline-run-*/run-*.wandb')
    # wandb writes in the background
    until(lambda: {'watched_ab', 'adversarial', 'samples', 'lr_0'} <= wandb_keys(record))
    until(lambda: list(run.glob('wandb/offline-run-*/files/media/images/samples*.png')))


def test_tensorboard_has_every_batch_after_a_resume(tmp_path, monkeypatch):
    "Stopped by Ctrl-C after the fourth batch, and resumed: no batch is missing."
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    class StopsAtFour(run_module.Finite):
        def after_batch(self):
            if self.training and self.train_iter == 4: signal.raise_signal(signal.SIGINT)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(run_module, 'Finite', StopsAtFour)
        quietly(out=tmp_path/'run', track='tensorboard')
    run = quietly(out=tmp_path/'run', track='tensorboard', resume=True)
    steps = [e.step for e in EventAccumulator(str(run/'tensorboard'/'pretrain')).Reload().Scalars('lr_0')]
    assert sorted(set(steps)) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize('number, name', [(signal.SIGINT, 'Ctrl-C'), (signal.SIGTERM, 'SIGTERM')])
def test_signals_save_all(number, name, tmp_path):
    "The fourth batch ends, all is saved, and the handlers are again what they were."
    class StopsAtFour(Callback):
        def after_step(self):
            if self.train_iter == 4: signal.raise_signal(number)
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt, match=f'Stopped by {name}. What was trained so far is in'):
        quietly(out=tmp_path/'run', cbs=StopsAtFour(), checkpoint_minutes=60)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before
    assert (tmp_path/'run'/'model'/'model.safetensors').exists() and list((tmp_path/'run'/'checkpoints').glob('*.pt'))
    alone, resumed = quietly(out=tmp_path/'alone'), quietly(out=tmp_path/'run', resume=True)
    assert same(alone, resumed)


def test_error_in_a_batch_gives_ctrl_c_back(tmp_path):
    class Breaks(Callback):
        def after_pred(self): raise ZeroDivisionError('in a batch')
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError): quietly(out=tmp_path/'run', cbs=Breaks())
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_what_a_stage_cannot_do_is_said_before_the_first_batch(tmp_path):
    with pytest.raises(ColorganError, match='photos of at least 48 pixels'):
        quietly(recipe=replace('light', size=32, bs=2), out=tmp_path/'run')
    assert not (tmp_path/'run').exists()


def test_tracker_that_is_missing_leaves_no_folder(tmp_path):
    with pytest.raises(ColorganError, match='choose among tensorboard'):
        quietly(out=tmp_path/'run', track='excel')
    assert not (tmp_path/'run').exists()


@pytest.fixture
def quick_mirror(monkeypatch):
    monkeypatch.setattr(run_module, 'mirrored', partial(mirrored, seconds=.02))


def at_epochs(monkeypatch, **actions):
    "Do something before an epoch of the first stage: `at_epochs(monkeypatch, e1=…)`."
    def before_epoch(self):
        if not hasattr(self.model, 'gen') and f'e{self.learn.epoch}' in actions:
            actions[f'e{self.learn.epoch}']()
    monkeypatch.setattr(run_module.ColourMetrics, 'before_epoch', before_epoch, raising=False)


def until(condition, patience=20):
    end = time.monotonic() + patience
    while not condition(): assert time.monotonic() < end or time.sleep(.01)


def test_drive_that_goes_away_does_not_stop_a_training(tmp_path, monkeypatch, quick_mirror):
    drive, gone = tmp_path/'drive', tmp_path/'gone'
    drive.mkdir()
    def leave(): until((drive/'run'/'checkpoints').exists); drive.rename(gone); time.sleep(.1)
    def come_back(): assert not drive.exists(); gone.rename(drive)
    at_epochs(monkeypatch, e2=leave, e4=come_back)
    with redirect_stdout(io.StringIO()) as said:
        run = train('bundled', recipe, tmp_path/'here'/'run', device='cpu', pretrain_epochs=6,
                    checkpoint_minutes=0, drive=drive)
    assert 'cannot be written now' in said.getvalue() and 'is back, and all has been copied' in said.getvalue()
    def files(folder):
        return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()
                and p.name != '.lock'}
    assert files(run) == files(drive/'run') and (drive/'run'/'model').exists()


def test_no_half_copy_stays_on_drive(tmp_path):
    "As when it went away during a copy, and the checkpoint was gone when it came back"
    from colorgan.engine.drive import Mirror
    near, far = (tmp_path/side/'run'/'checkpoints' for side in ('here', 'drive'))
    for folder in near, far: folder.mkdir(parents=True)
    (near/'0000000007.pt').write_bytes(b'whole')
    (far/'.0000000006.pt.part').write_bytes(b'ha')
    Mirror(near.parent, far.parent).sync()
    assert [p.name for p in far.iterdir()] == ['0000000007.pt']


def test_run_goes_on_from_drive_on_another_machine(tmp_path, monkeypatch, quick_mirror):
    alone, drive = quietly(out=tmp_path/'alone', pretrain_epochs=4), tmp_path/'drive'
    def disconnect():
        until(lambda: list((drive/'run'/'checkpoints').glob('*.pt')))
        raise ConnectionError('gone')
    at_epochs(monkeypatch, e2=disconnect)
    again = partial(quietly, out=tmp_path/'here'/'run', pretrain_epochs=4,
                    checkpoint_minutes=0, drive=drive, resume=True)
    with pytest.raises(ConnectionError): again()
    shutil.rmtree(tmp_path/'here')
    at_epochs(monkeypatch)
    assert same(again(), alone) and same(drive/'run', alone)


def test_time_limited_bar_in_a_terminal(tmp_path, monkeypatch):
    # fastprogress shows its bars in a terminal, and in this one's
    monkeypatch.setenv('PYCHARM_HOSTED', '1')
    with redirect_stdout(io.StringIO()) as said:
        train('bundled', recipe, tmp_path/'run', device='cpu', pretrain_minutes=.05,
              gan_epochs=1)
    text = said.getvalue()
    assert 'Epoch 1: |' in text and 'Epoch 2: |' in text and '1000000' not in text
    assert not re.search(r'Epoch \d+/(?!1:)', text)
    assert 'Epoch 1/1: |' in text and 'photos/s, loss ' in text and 'left of the stage' in text


def test_status_command(tmp_path, capsys):
    run = quietly(out=tmp_path/'run')
    assert main(['status', str(run)]) == 0
    out = capsys.readouterr().out
    assert f'{run}: finished (pix2pix).' in out and 'after epoch 2 of gan: ' in out and 'watched_ab' in out
    assert main(['status', str(tmp_path)]) == 2


@pytest.mark.parametrize('wrong, sentence', [
    (['--size', '32,x'],
     'give a number, or several such as 64,128'), (['--bs', 'many'],
     "it is a number or auto, not 'many'"),
    (['--amp', 'fp8'], 'choose one of fp32, fp16, bf16'), (['--valid', 'nowhere'], 'nowhere'),
    (['--track', 'excel'], 'choose among')], ids=lambda v: v[0] if isinstance(v, list) else '')
def test_wrong_words_leave_nothing(wrong, sentence, tmp_path, capsys):
    assert main(['train', 'bundled', '--out', str(tmp_path/'run'), '--recipe', 'pix2pix',
                 *wrong]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path/'run').exists()


def test_batch_size_auto_is_kept_for_the_whole_run(tmp_path):
    run = quietly(out=tmp_path/'run', bs='auto')
    assert json.loads((run/'run.json').read_text())['recipe']['bs'] == recipe.bs
    quietly(out=run, bs='auto', resume=True)


@pytest.fixture
def double(monkeypatch):
    "Whatever is computed in single precision is computed in double."
    monkeypatch.setattr(torch.Tensor, 'float', torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def test_penalty_reaches_every_weight_of_a_conditional_critic(double):
    "The double backward pass against finite differences."
    torch.manual_seed(0)
    critic = create_critic(replace(recipe, critic_kw=dict(base=2, n_down=1, norm='instance')))
    real, fake = torch.rand(2, 2, 3, 16, 16).unbind(0)
    weight = critic.net[0].weight
    def penalty():
        torch.manual_seed(1)
        return gradient_penalty(critic, real, fake)
    def moved(i, by):
        with torch.no_grad(): weight[i] += by
        value = penalty().item()
        with torch.no_grad(): weight[i] -= by
        return value
    grad, = torch.autograd.grad(penalty(), weight)
    for i in ((0, 0, 1, 1), (1, 2, 3, 0)): # the first looks at L, the condition
        slope = (moved(i, 1e-6) - moved(i, -1e-6)) / 2e-6
        assert abs(slope) > 1e-4 and slope == pytest.approx(grad[i].item(), rel=1e-3)


@pytest.mark.parametrize('change',
                         [dict(adv_loss='wgan-gp', n_critic=2), dict(clip=.01),
                          dict(critic_warmup=1), dict(sizes=(16, 32), growing=True)],
                          ids=lambda c: next(iter(c)))
def test_stage_control(change, tmp_path):
    run = quietly(recipe=replace(recipe, **change), out=tmp_path/'run')
    log = [json.loads(line) for line in (run/'log.jsonl').read_text().splitlines()]
    assert len(log) == 4 and all(0 < d['watched_ab'] < 50 for d in log)


def test_clipped_gradients_are_short():
    class Norms(Callback):
        order = 90
        def before_step(self):
            norms.append(torch.cat([p.grad.flatten()
                                    for p in self.model.parameters()]).norm().item())
    norms, dls = [], get_dls('bundled', 32, 2, device='cpu')
    for clip in (0., .01):
        torch.manual_seed(0)
        learn = gan_learner(dls, replace(recipe, clip=clip), cbs=Norms())
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
    half = len(norms) // 2
    assert min(norms[:half]) > .02 and max(norms[half:]) <= .01001


def test_own_callbacks_metrics_and_splitter_are_taken():
    dls, mine = get_dls('bundled', 32, 2, device='cpu'), Grads()
    for make in (pretrain_learner, gan_learner):
        learn = make(dls, recipe, cbs=[mine], metrics=[],
                     splitter=lambda m: [list(m.parameters())], lr=1e-3)
        assert mine in learn.cbs and not learn.metrics and hasattr(learn, 'ema')


def test_own_callbacks_of_a_run(tmp_path):
    """The same ones for both stages, or what a function gives for each; one that has a method
    `show` is given the sheets."""
    class Watcher(Callback):
        def __init__(self): self.epochs, self.sheets = [], []
        def after_epoch(self): self.epochs.append((hasattr(self.model, 'gen'), self.epoch))
        def show(self, sheet): self.sheets.append(sheet.size)
    both, made = Watcher(), {}
    quietly(out=tmp_path/'one', cbs=both)
    quietly(out=tmp_path/'two', cbs=lambda stage: [made.setdefault(stage, Watcher())])
    assert both.epochs == [(False, 0), (False, 1), (True, 0), (True, 1)] and both.sheets
    assert made['pretrain'].epochs == [(False, 0), (False, 1)] and made['gan'].epochs == [(True, 0), (True, 1)]
    assert same(tmp_path/'one', tmp_path/'two')


def test_skipped_epochs_are_heard_of_by_nobody():
    class Epochs(Callback):
        def before_epoch(self): heard.append(('before', self.epoch))
        def after_epoch(self): heard.append(('after', self.epoch))
    heard, learn = [], pretrain_learner(get_dls('bundled', 32, 2, device='cpu'), recipe)
    with learn.no_bar(), learn.no_logging(): learn.fit(3, cbs=[StartAt(2), Epochs()])
    assert heard == [('before', 2),
                     ('after', 2)] and len(learn.recorder.values) == 1 and learn.train_iter == 3


def test_callback_that_another_needs_cannot_be_removed():
    learn = gan_learner(get_dls('bundled', 32, 2, device='cpu'), recipe)
    learn.remove_cb(Clock)
    with learn.no_bar(), learn.no_logging(), pytest.raises(ColorganError,
                                                           match='Turns needs the Clock'):
        learn.fit(1)


def test_watched_figures_are_those_of_the_average(tmp_path):
    """With a decay of nearly 1 the average stays at the beginning, and so do the figures,
    whatever the live weights do."""
    slow = quietly(recipe=replace(recipe, ema=.9999999, pretrain_lr=.1, gan_epochs=0),
                   out=tmp_path/'run', pretrain_epochs=3)
    figures = [json.loads(line)['watched_ab']
               for line in (slow/'log.jsonl').read_text().splitlines()]
    assert len(figures) == 3
    last = json.loads((slow/'model'/'model.json').read_text())['metrics']
    assert last['watched_ab'] == pytest.approx(figures[-1], abs=1e-4)
    from colorgan.colour.metrics import colour_scores
    from colorgan.nets.weights import load_model
    dls = get_dls('bundled', 32, 2, device='cpu')
    x, y = dls.valid.one_batch()
    with torch.no_grad(): seen = colour_scores('lab', x, load_model(slow)(x), y)['ab'].mean().item()
    assert seen == pytest.approx(figures[-1], abs=1e-3)


@pytest.mark.slow
def test_compiled_training(tmp_path):
    small = replace(recipe, size=8, gan_epochs=1, pretrain_epochs=1, ema=0.)
    plain, fused = (quietly(recipe=small, out=tmp_path/str(c), compile=c, amp='fp32')
                    for c in (False, True))
    for p, q in zip(load_tensors(plain).values(), load_tensors(fused).values(), strict=True):
        assert (p - q).abs().max() < 1e-3


def test_after_an_error_the_learner_and_the_network_are_as_before():
    class Trips(Callback):
        def after_loss(self): raise RuntimeError('tripped')
    frozen = replace('light-plain', size=32, bs=2, gen_kw={'width': .25}, frozen=2)
    learn = pretrain_learner(get_dls('bundled', size=32, bs=2, device='cpu'), frozen,
                             create_gen(frozen, pretrained=False))
    metrics = list(learn.metrics)
    with learn.no_bar(), learn.no_logging(), pytest.raises(RuntimeError, match='tripped'):
        learn.fit(1, cbs=[ColourMetrics(), Trips()])
    assert list(learn.metrics) == metrics
    assert all(p.requires_grad for p in learn.model.net.encoder.parameters())


def test_a_table_of_epochs_is_whole_before_the_first_epoch_has_ended(tmp_path):
    class Look(Callback):
        def after_batch(self): seen.append((tmp_path/'run'/'pretrain.csv').read_text().splitlines())
    for start, lines in (0, 1), (1, 2):
        seen = []
        learn = pretrain_learner(get_dls('bundled', size=32, bs=2, device='cpu'), recipe)
        with tracked(['csv'], tmp_path/'run', {}) as callbacks, learn.no_bar(), learn.no_logging():
            learn.fit(2, cbs=[StartAt(start), *callbacks('pretrain'), Look()])
        assert len(seen[0]) == lines, seen[0]


def test_a_copy_from_drive_that_broke_off_goes_on(tmp_path, monkeypatch):
    quietly(out=tmp_path/'far')
    n, whole = 0, drive.copy_verified
    def breaks(a, b):
        nonlocal n
        n += 1
        if n == 4: raise OSError(5, 'Input/output error')
        whole(a, b)
    monkeypatch.setattr(drive, 'copy_verified', breaks)
    with pytest.raises(ColorganError, match='cannot be copied'): drive.bring_back(tmp_path/'far', tmp_path/'near')
    assert not (tmp_path/'near'/'run.json').exists()
    with redirect_stdout(io.StringIO()): drive.bring_back(tmp_path/'far', tmp_path/'near')
    names = lambda root: sorted(p.relative_to(root) for p in root.rglob('*') if p.suffix != '.lock')
    assert names(tmp_path/'near') == names(tmp_path/'far')


def test_the_share_of_a_stage_is_at_most_one():
    clock = Clock(minutes=1)
    clock.spent = 65.
    assert clock.share() == 1.


def test_who_may_only_read_a_run_sees_that_it_goes_on(tmp_path, monkeypatch):
    folder, write = RunFolder(tmp_path), open
    def only_read(f, mode='r', *args, **kwargs):
        if set(mode) & set('wax+'): raise PermissionError(13, 'Permission denied', str(f))
        return write(f, mode, *args, **kwargs)
    with folder.locked():
        monkeypatch.setattr('builtins.open', only_read)
        assert folder.is_locked()
