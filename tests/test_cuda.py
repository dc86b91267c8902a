"""What only a GPU can show, in a few minutes and from nothing: `pytest -m cuda tests/test_cuda.py`.
Each test that can is rehearsed on a processor with the other tests, so that it fails on a GPU for
the GPU's sake alone."""
import contextlib
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from PIL import Image
from skimage import data

from colorgan.colorizer import Colorizer
from colorgan.core import ColorganError
from colorgan.data import get_dls
from colorgan.engine import fast
from colorgan.engine.callbacks import weights_are_finite
from colorgan.engine.checkpoint import Checkpoints
from colorgan.engine.fast import best_precision, largest_bs, precision, trial_step
from colorgan.evaluation import evaluate
from colorgan.generator import create_gen
from colorgan.nets.weights import load_tensors, save_model
from colorgan.photos.cache import make_cache
from colorgan.photos.sources import bundled_photos
from colorgan.pretrain import pretrain_learner
from colorgan.recipes import replace
from colorgan.run import go_on, train
from colorgan.use.album import colorize_files

root = Path(__file__).resolve().parent.parent
small = replace('pix2pix', size=32, bs=2, gen_kw=dict(base=4), critic_kw=dict(base=4, n_down=1),
                pretrain_epochs=3, gan_epochs=3, ema=.9, n_critic=2)
gpu = pytest.param('cuda', marks=pytest.mark.cuda)


@pytest.fixture(params=[gpu, 'cpu'])
def device(request): return torch.device(request.param)


def quiet(f, *args, **kwargs):
    "What `f` prints"
    with contextlib.redirect_stdout(io.StringIO()) as said: f(*args, **kwargs)
    return said.getvalue()


def finite(run): return all(t.isfinite().all() for t in load_tensors(run).values())


def logged(run): return [json.loads(line) for line in (run/'log.jsonl').read_text().splitlines()]


class Overflows(Callback):
    """Gradients that are not finite in some steps; `skipped` has those that were skipped, `turns`
    which networks had a step"""
    order = 9
    def __init__(self, when=()): self.when, self.skipped, self.turns = when, [], set()
    def after_backward(self):
        if self.train_iter not in self.when: return
        for p in self.model.parameters():
            if p.grad is not None: p.grad.fill_(float('inf'))
    def after_step(self):
        self.turns.add(tuple(any(p.grad is not None for p in part.parameters())
                             for part in self.model.children()))
    def after_batch(self):
        if self.training and self.learn.mixed_precision.skipped: self.skipped.append(self.train_iter - 1)


@pytest.mark.parametrize('amp', ['fp16', 'bf16'])
def test_both_stages_at_half_precision(amp, device, tmp_path):
    "With turns of the discriminator alone, and with steps that are skipped in both stages"
    if amp == 'bf16' and device.type == 'cuda' and best_precision(device) != 'bf16': pytest.skip('this GPU has no bf16')
    watch = dict(pretrain=Overflows({1, 2}), gan=Overflows({1, 2, 5}))
    if amp == 'bf16': watch = dict(pretrain=Overflows(), gan=Overflows()) # it has float32's range: nothing is skipped
    quiet(train, 'bundled', small, tmp_path/'run', device=device.type, amp=amp, cbs=lambda stage: [watch[stage]])
    for cb in watch.values(): assert set(cb.when) <= set(cb.skipped) and (amp == 'fp16' or not cb.skipped)
    assert {(True, True), (False, True)} <= watch['gan'].turns
    assert finite(tmp_path/'run') and len(logged(tmp_path/'run')) == 6
    assert not torch.is_autocast_enabled(device.type)


@pytest.mark.parametrize('changes', [
    dict(old=.5, sharpness=.5, rare=.5, clip=1., sizes=(32, 64), size=64, schedule='cosine'),
    dict(gen_kw=dict(base=4, norm='instance'), critic_kw=dict(base=4, n_down=1, norm=None),
         adv_loss='wgan-gp', gp=10.),
    dict(space='rgb')], ids=['options', 'gradient penalty', 'rgb'])
def test_recipes(changes, device, tmp_path):
    "In the precision that is best here"
    recipe = replace(small, name='other', **changes)
    quiet(train, 'bundled', recipe, tmp_path/'run', device=device.type, pretrain_epochs=1, gan_epochs=1)
    assert finite(tmp_path/'run')


@pytest.mark.parametrize('name', ['resnet18-two-stage', 'light'])
def test_networks_of_the_catalogue(name, device, tmp_path):
    kw = dict(gen_kw=dict(pretrained=False)) if name == 'resnet18-two-stage' else {}
    quiet(train, 'bundled', replace(name, **kw), tmp_path/'run', device=device.type, size=64, bs=2,
          pretrain_epochs=1, gan_epochs=1)
    assert finite(tmp_path/'run')


class Stops(Exception): pass


class Stop(Callback):
    "Ends the run as a power cut does, when the checkpoint of a step is written"
    order = 99
    def __init__(self, at): self.at = at
    def after_batch(self):
        if self.training and self.train_iter == self.at: raise Stops('here')


@pytest.mark.parametrize('stage', ['pretrain', 'gan'])
@pytest.mark.parametrize('begun, resumed', [pytest.param('cuda', 'cpu', marks=pytest.mark.cuda),
                                            pytest.param('cpu', 'cuda', marks=pytest.mark.cuda),
                                            pytest.param('cuda', 'cuda', marks=pytest.mark.cuda), ('cpu', 'cpu')])
def test_a_run_goes_on_elsewhere(begun, resumed, stage, tmp_path):
    "On a processor what was begun on a GPU, and the other way round; each in the precision that is best there"
    with pytest.raises(Stops):
        quiet(train, 'bundled', small, tmp_path/'run', device=begun,
              amp='fp16' if begun == 'cuda' else None, checkpoint_minutes=0,
              cbs=lambda now: [Stop(4)] if now == stage else [])
    state = Checkpoints(tmp_path/'run'/'checkpoints').load()
    assert state['learner']['train_iter'] == 4
    assert all(t.device.type == 'cpu' for t in state['learner']['model'].values())
    quiet(go_on, tmp_path/'run', device=resumed, amp='fp32' if resumed == 'cpu' else 'fp16')
    assert finite(tmp_path/'run') and [line['epoch'] for line in logged(tmp_path/'run')] == [0, 1, 2] * 2


def test_a_resumed_run_agrees_with_one_that_was_left_alone(device, tmp_path):
    """To the last bit on a processor. On a GPU the sums of one and the same step differ by
    rounding, and Adam's first steps carry that on."""
    recipe = replace(small, gen_kw=dict(base=4, dropout=0.), gan_epochs=0)
    quiet(train, 'bundled', recipe, tmp_path/'alone', device=device.type)
    with pytest.raises(Stops):
        quiet(train, 'bundled', recipe, tmp_path/'run', device=device.type, checkpoint_minutes=0,
              cbs=[Stop(5)])
    quiet(go_on, tmp_path/'run', device=device.type)
    alone, run = ([line['ab_error'] for line in logged(tmp_path/name)] for name in ('alone', 'run'))
    assert run == (alone if device.type == 'cpu' else pytest.approx(alone, rel=.02))


@pytest.mark.parametrize('bad', ['loss', 'weights'])
def test_what_is_not_finite_ends_the_run(bad, device, tmp_path):
    "In the last batches, between two looks at the losses: neither the model nor a checkpoint has it."
    class Breaks(Callback):
        order = 9
        def before_batch(self):
            if self.training and self.train_iter == 7 and bad == 'loss': self.learn.yb = (self.y * float('nan'),)
        def after_batch(self):
            if self.training and self.train_iter == 8 and bad == 'weights':
                next(self.model.buffers()).fill_(float('nan'))
    with pytest.raises(ColorganError, match='not finite|no longer finite'):
        quiet(train, 'bundled', small, tmp_path/'run', device=device.type, checkpoint_minutes=0,
              gan_epochs=0, cbs=lambda stage: [Breaks()])
    assert not (tmp_path/'run'/'model').exists()
    state = Checkpoints(tmp_path/'run'/'checkpoints').load()['learner']
    assert state['train_iter'] <= 7
    assert all(t.isfinite().all() for t in state['model'].values() if t.is_floating_point())


@pytest.mark.parametrize('error', [KeyboardInterrupt, torch.OutOfMemoryError])
def test_an_exception_leaves_no_autocast_and_no_old_weights(error, device):
    class Raises(Callback):
        def after_pred(self): raise error('here')
    learn = pretrain_learner(get_dls('bundled', 32, 2, device=device), small)
    with pytest.raises(error), learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=[*precision(device, 'fp16'), Raises()])
    assert not torch.is_autocast_enabled(device.type)
    w = torch.ones(8, 8, requires_grad=True, device=device)
    assert (w @ w).dtype == torch.float32


@contextlib.contextmanager
def little_memory(device, megabytes, pixels, monkeypatch):
    """So many megabytes more than are taken now. On a processor, convolutions of batches with more
    pixels say that its memory is full."""
    if device.type == 'cpu':
        forward = torch.nn.Conv2d.forward
        def bounded(self, x):
            if x.shape[0] * x.shape[2] * x.shape[3] > pixels: raise torch.OutOfMemoryError('CUDA out of memory.')
            return forward(self, x)
        with monkeypatch.context() as m:
            m.setattr(torch.nn.Conv2d, 'forward', bounded)
            yield
        return
    torch.cuda.empty_cache()
    bytes_now, total = torch.cuda.memory_reserved(), torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((bytes_now + megabytes * 2**20) / total)
    try: yield
    finally: torch.cuda.set_per_process_memory_fraction(1.)


def allocated(device): return torch.cuda.memory_allocated() if device.type == 'cuda' else 0


large = replace(small, size=512, bs=6, gen_kw=dict(base=32), critic_kw=dict(base=16, n_down=1),
                pretrain_epochs=1, gan_epochs=1)


def test_out_of_memory_lets_go(device, tmp_path, monkeypatch):
    before = allocated(device)
    with little_memory(device, 400, 600_000, monkeypatch):
        # `kept`, as a notebook keeps a traceback
        with pytest.raises(ColorganError, match='memory ran out: train with smaller batches') as kept:
            quiet(train, 'bundled', large, tmp_path/'run', device=device.type)
        assert allocated(device) < before + 2e6 and kept.value.__context__ is None
        quiet(train, 'bundled', small, tmp_path/'small', device=device.type)
    assert finite(tmp_path/'small')


def test_batches_as_large_as_the_memory_allows_are_trained(device, tmp_path, monkeypatch):
    if device.type == 'cpu': # where `auto` takes the recipe's batches
        monkeypatch.setattr(fast, 'auto_bs', None)
        def by_trial(recipe, device, photos, amp, gan):
            return largest_bs(lambda bs: trial_step(recipe, bs, device, amp, gan), photos)
        monkeypatch.setattr('colorgan.run.auto_bs', by_trial)
    recipe = large if device.type == 'cuda' else replace(large, size=64, gen_kw=dict(base=4))
    with little_memory(device, 2500, 3 * 64**2, monkeypatch):
        quiet(train, 'bundled', recipe, tmp_path/'run', device=device.type, bs='auto', amp='fp16')
    bs = json.loads((tmp_path/'run'/'run.json').read_text())['recipe']['bs']
    assert finite(tmp_path/'run') and 1 <= bs <= 6
    if device.type == 'cpu': assert bs == 3


@pytest.fixture
def weights(tmp_path):
    "An untrained network that colors a lot"
    torch.manual_seed(0)
    gen, folder = create_gen(recipe := replace(small, size=64, gen_kw=dict(base=32))), tmp_path/'weights'
    for p in gen.net.last.parameters(): torch.nn.init.normal_(p, std=.1)
    save_model(folder, gen, recipe)
    return folder


def apart(ours, theirs): return np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).mean()


def test_album(device, weights, tmp_path):
    photos = tmp_path/'photos'
    photos.mkdir()
    for i in range(12):
        part = Image.fromarray(data.chelsea()).crop((10 * i, 0, 10 * i + 100, 60 + 40 * (i % 2)))
        part.save(photos/f'{i}.png')
    report = colorize_files(photos, tmp_path/'out', weights, device=device.type, progress=False)
    assert report.done == 12 and not report.failed
    alone = Colorizer(weights, device='cpu')
    assert all(apart(Image.open(tmp_path/'out'/f.name), alone(f)) < 1 for f in photos.iterdir())


def test_a_photo_that_does_not_fit_into_the_memory_stops_no_other(device, weights, tmp_path, monkeypatch):
    photos = tmp_path/'photos'
    photos.mkdir()
    for i in range(4): Image.fromarray(data.chelsea()).resize((64, 64)).save(photos/f'{i}.png')
    Image.fromarray(data.chelsea()).resize((256, 64)).save(photos/'2b.png')
    size = 1024 if device.type == 'cuda' else 128
    with little_memory(device, 450, 2 * size**2, monkeypatch):
        report = colorize_files(photos, tmp_path/'out', weights, size=size, device=device.type, progress=False)
    assert report.failed == [f'{photos/"2b.png"} could not be colorized: there is not enough memory']
    assert sorted(f.name for f in (tmp_path/'out').iterdir()) == [f'{i}.png' for i in range(4)]


def test_one_network_in_many_threads(device, weights):
    colorizer, cat = Colorizer(weights, device=device.type), Image.fromarray(data.chelsea())
    alone = colorizer(cat)
    with ThreadPoolExecutor(8) as pool:
        assert all(apart(im, alone) < .1 for im in pool.map(lambda _: colorizer(cat), range(24)))


def test_evaluate(device, weights):
    there, here = (evaluate(weights, 'bundled', 64, device=d, judges=False) for d in (device.type, 'cpu'))
    for k in 'ab', 'ab_grey', 'psnr', 'cf': assert there[k] == pytest.approx(here[k], rel=.01)


@pytest.mark.parametrize('cached', [False, True], ids=['files', 'cache'])
def test_batches(cached, device, tmp_path):
    photos = make_cache(bundled_photos(), tmp_path/'a.cache', 64, say=lambda text: None) if cached else 'bundled'
    there, here = (get_dls(photos, 32, 2, device=torch.device(d)).valid.one_batch() for d in (device, 'cpu'))
    for ours, theirs in zip(there, here):
        assert ours.device.type == device.type
        torch.testing.assert_close(ours.cpu().as_subclass(torch.Tensor),
                                   theirs.as_subclass(torch.Tensor), rtol=0, atol=2e-3)


@pytest.mark.parametrize('device', [gpu, pytest.param('cpu', marks=pytest.mark.slow)])
def test_compiled(device, tmp_path):
    said = quiet(train, 'bundled', small, tmp_path/'run', device=device, compile=True, pretrain_epochs=1, gan_epochs=1)
    assert 'does not work here' not in said and finite(tmp_path/'run')


@pytest.mark.cuda # `test_benchmarks.py` has the processor's
def test_benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(root/'benchmarks')
    from data import bench_data
    from train import bench_train
    assert bench_data(n=32, size=64, bs=8, seconds=.2, rounds=1, say=str)['gpu_lab_photos_per_s'] > 0
    facts = bench_train(rounds=1, steps=2, bs=2, size=64, device='cuda', n_threads=1)
    assert facts['gpu'] and all(r > 0 for r in facts['photos_per_s'].values())


def test_weights_are_looked_at_where_they_are(device):
    gen = create_gen(small).to(device)
    assert weights_are_finite(gen)
    next(gen.parameters()).data.view(-1)[3] = float('inf')
    assert not weights_are_finite(gen)
