"""Half precision and what may go wrong with it, shown on a CPU: autocast that stays on, skipped
steps, losses and weights that are not finite, memory that runs out. What only a GPU can show is in
`test_cuda.py`."""
import contextlib
import gc
import io
import weakref

import pytest
import torch
from fastai.callback.core import Callback, CancelFitException

from colorgan import run as run_module
from colorgan.core import ColorganError
from colorgan.data import get_dls
from colorgan.engine import fast
from colorgan.engine.callbacks import Finite, Schedule, weights_are_finite
from colorgan.engine.checkpoint import Checkpoints
from colorgan.engine.fast import auto_bs, largest_bs, precision, trial_step
from colorgan.engine.learner import EMA, Clock
from colorgan.engine.order import callback_of
from colorgan.gan import gan_learner
from colorgan.nets.weights import load_tensors
from colorgan.pretrain import pretrain_learner
from colorgan.recipes import replace
from colorgan.run import go_on, train

recipe = replace('pix2pix', size=32, bs=2, gen_kw=dict(base=4, dropout=0.), critic_kw=dict(base=4, n_down=1),
                 pretrain_epochs=2, gan_epochs=2, ema=.9, n_critic=2)
cpu, gpu = torch.device('cpu'), torch.device('cuda')


def quiet(f, *args, **kwargs):
    "What `f` prints"
    with contextlib.redirect_stdout(io.StringIO()) as said: f(*args, **kwargs)
    return said.getvalue()


def fit(learn, epochs, cbs):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, cbs=cbs)


@pytest.fixture
def learn(): return pretrain_learner(get_dls('bundled', 32, 2, device='cpu'), recipe)


class Raises(Callback):
    "Ends the second batch with an exception, in the middle of autocast"
    def __init__(self, error): self.error = error
    def after_pred(self):
        if self.train_iter == 1: raise self.error


class Times(Callback):
    "Multiplies the gradients of some steps, or the loss, by a number that makes them overflow"
    order = 9
    def __init__(self, when, by=1e30, loss=False): self.when, self.by, self.loss_too = when, by, loss
    def after_loss(self):
        if self.training and self.when(self.train_iter) and self.loss_too:
            self.learn.loss_grad = self.learn.loss = self.loss_grad * float('inf')
    def after_backward(self):
        if not self.when(self.train_iter): return
        for p in self.model.parameters():
            if p.grad is not None: p.grad.mul_(self.by * self.by)


@pytest.mark.parametrize('error', [
    KeyboardInterrupt(), torch.OutOfMemoryError('CUDA out of memory.'),
    ZeroDivisionError('division by zero'), CancelFitException()], ids=repr)
def test_no_exception_leaves_autocast_on(error, learn):
    with contextlib.suppress(type(error)): fit(learn, 1, [*precision(cpu, 'bf16'), Raises(error)])
    assert not torch.is_autocast_enabled('cpu')
    w = torch.ones(4, 4, requires_grad=True)
    assert (w @ w).dtype == torch.float32


def test_training_after_an_exception_uses_new_weights(learn):
    "The cache of half weights that autocast keeps is gone."
    with contextlib.suppress(KeyboardInterrupt): fit(learn, 1, [*precision(cpu, 'bf16'), Raises(KeyboardInterrupt())])
    x, _ = learn.dls.valid.one_batch()
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        before = learn.model.eval()(x).clone()
    with torch.no_grad():
        for p in learn.model.parameters(): p.mul_(1.5)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16): assert not torch.equal(learn.model(x), before)


def test_traceback_that_is_kept_keeps_no_batch(learn):
    "A notebook keeps the last traceback. The tensors of the batch that did not fit are let go all the same."
    kept = []
    def full(model, inputs):
        activations = inputs[0].as_subclass(torch.Tensor) * 2
        kept.append(weakref.ref(activations))
        raise torch.OutOfMemoryError('CUDA out of memory.')
    learn.model.register_forward_pre_hook(full)
    with pytest.raises(torch.OutOfMemoryError) as e: fit(learn, 1, [])
    gc.collect()
    assert kept and all(r() is None for r in kept) and e.value.__traceback__ is not None


def test_run_that_is_out_of_memory_lets_go(tmp_path):
    refs = []
    class Full(Callback):
        def after_pred(self):
            refs.extend(map(weakref.ref, (self.model, self.pred, next(self.model.parameters()))))
            raise torch.OutOfMemoryError('CUDA out of memory.')
    with pytest.raises(ColorganError, match="memory ran out: train with smaller batches") as e:
        quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', cbs=lambda stage: [Full()])
    assert all(r() is None for r in refs) and e.value.__context__ is None


def test_error_in_a_validation_puts_the_live_weights_back(learn):
    class Breaks(Callback):
        order = 5
        def after_pred(self):
            if not self.training: raise ZeroDivisionError('division by zero')
    live = {}
    class Watches(Callback):
        order = 99
        def after_train(self): live.update({k: t.clone() for k, t in self.model.state_dict().items()})
    schedule = Schedule(callback_of(learn, Clock), 'cosine')
    learn.create_opt()
    before = [h['lr'] for h in learn.opt.hypers]
    with pytest.raises(ZeroDivisionError): fit(learn, 1, [Breaks(), Watches(), schedule])
    assert all(torch.equal(t, live[k]) for k, t in learn.model.state_dict().items())
    assert callback_of(learn, EMA).average is None and [h['lr'] for h in learn.opt.hypers] == before


@pytest.mark.parametrize('stage', [pretrain_learner, gan_learner], ids=['pixel loss', 'adversarial'])
def test_a_skipped_step_changes_no_weight_and_stops_nothing(stage, tmp_path):
    "Among them a loss that is infinite: the scale is made smaller, and the training goes on."
    learn, finite = stage(get_dls('bundled', 32, 2, device='cpu'), recipe), Finite(tmp_path, every=1)
    seen = []
    class Weights(Callback):
        order = 99
        def before_step(self): pass
        def after_batch(self):
            if self.training:
                seen.append((self.learn.scaler.get_scale(),
                             [p.detach().clone() for p in self.model.parameters()]))
    fit(learn, 3, [*precision(cpu, 'fp16'), finite, Times(lambda i: i in (1, 2), loss=True), Weights()])
    scales, weights = zip(*seen)
    assert finite.bad is None and scales[2] == scales[0] / 4
    for i in 1, 2: assert all(map(torch.equal, weights[0], weights[i]))
    assert not all(map(torch.equal, weights[2], weights[4]))
    assert float(learn.recorder.smooth_loss.value) < 1e3


def test_gradients_that_never_fit_stop_the_run(tmp_path):
    with pytest.raises(ColorganError, match='gradients of 50 steps in a row did not fit into half '
                                            'precision: train with amp fp32'):
        quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', amp='fp16',
              pretrain_epochs=60, cbs=lambda stage: [Times(lambda i: True)])
    assert not (tmp_path/'run'/'model').exists()


class BreaksLast(Callback):
    "A loss that is not finite in the last batch of the stage"
    order = 9
    def __init__(self, at=-1): self.at = at
    def before_batch(self):
        if self.training and self.train_iter == self.at % (self.n_iter * self.n_epoch):
            self.learn.yb = (self.y * float('nan'),)


def looks_seldom(monkeypatch):
    "As on a GPU, where losses are looked at once in sixteen steps"
    monkeypatch.setattr(run_module, 'Finite', lambda path, every: Finite(path, 16))


@pytest.mark.parametrize('minutes', [None, .02], ids=['epochs', 'minutes'])
def test_the_last_losses_are_looked_at(minutes, tmp_path, monkeypatch):
    looks_seldom(monkeypatch)
    broken = BreaksLast() if not minutes else BreaksLast(3)
    with pytest.raises(ColorganError, match='the loss of step .* is not finite'):
        quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', cbs=lambda stage: [broken],
              pretrain_minutes=minutes)
    assert not (tmp_path/'run'/'model').exists() and (tmp_path/'run'/'nonfinite.pt').exists()


def test_no_checkpoint_is_written_after_a_nan(tmp_path, monkeypatch):
    looks_seldom(monkeypatch)
    with pytest.raises(ColorganError, match='is not finite'):
        quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', checkpoint_minutes=0,
              pretrain_epochs=8, cbs=lambda stage: [BreaksLast(3)])
    state = Checkpoints(tmp_path/'run'/'checkpoints').load()
    assert state['learner']['train_iter'] <= 3
    weights = state['learner']['model'].values()
    assert all(t.isfinite().all() for t in weights if t.is_floating_point())


def test_running_statistics_that_overflow_are_noticed(tmp_path):
    """A forward pass that does not fit into fp16 makes its loss infinite. That step is skipped, but
    the batch norms have seen it: all later losses are finite, and the model is of no use."""
    class Bright(Callback):
        order = 9
        def before_batch(self):
            if self.training and self.train_iter == 1: self.learn.xb = (self.x * 1e7,)
    with pytest.raises(ColorganError, match='running statistics are no longer finite.*--resume --amp fp32'):
        quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', amp='fp16',
              checkpoint_minutes=0, cbs=lambda stage: [Bright()])
    state = Checkpoints(tmp_path/'run'/'checkpoints').load()
    assert state['learner']['train_iter'] == 1 and not (tmp_path/'run'/'model').exists()
    quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', amp='fp32', resume=True)
    assert all(t.isfinite().all() for t in load_tensors(tmp_path/'run').values())


def test_batches_that_are_kept_are_bounded(learn, tmp_path):
    finite, most = Finite(tmp_path, every=16, most=100_000), []
    class Kept(Callback):
        order = 99
        def after_batch(self): most.append(sum(t.nbytes for s in finite.steps for t in (s[2][0], s[3][0])))
    fit(learn, 20, [finite, Kept()])
    assert 0 < max(most) <= 100_000


class Stops(Exception): pass


@pytest.mark.parametrize('before, after', [('bf16', 'fp16'), ('fp16', 'bf16'), ('fp16', 'fp32'), ('fp32', 'fp16')])
def test_a_run_goes_on_at_another_precision(before, after, tmp_path):
    class Stop(Callback):
        order = 99
        def after_batch(self):
            if self.train_iter == 2: raise Stops('here')
    with pytest.raises(Stops):
        quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', amp=before,
              checkpoint_minutes=0, cbs=lambda stage: [Stop()])
    assert Checkpoints(tmp_path/'run'/'checkpoints').load()['learner']['train_iter'] == 2
    quiet(go_on, tmp_path/'run', device='cpu', amp=after)
    assert all(t.isfinite().all() for t in load_tensors(tmp_path/'run').values())


def test_a_resumed_run_has_the_scale_that_it_had(tmp_path):
    "With a step that is skipped before, and one after: the weights are those of a run that was left alone."
    class Stop(Callback):
        order = 99
        def after_batch(self):
            if self.train_iter == 2: raise Stops('here')
    cbs = lambda *more: lambda stage: [Times(lambda i: i in (0, 4)), *more]
    words = dict(device='cpu', amp='fp16', checkpoint_minutes=0)
    quiet(train, 'bundled', recipe, tmp_path/'alone', cbs=cbs(), **words)
    with pytest.raises(Stops): quiet(train, 'bundled', recipe, tmp_path/'run', cbs=cbs(Stop()), **words)
    scale = Checkpoints(tmp_path/'run'/'checkpoints').load()['learner']['scaler']['scale']
    assert scale == 2**15
    quiet(go_on, tmp_path/'run', device='cpu', cbs=cbs())
    alone, run = (load_tensors(tmp_path/name) for name in ('alone', 'run'))
    assert all(torch.equal(t, run[k]) for k, t in alone.items())


def test_emulated_bf16_is_not_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda including_emulation=True: including_emulation)
    assert fast.best_precision(gpu) == 'fp16'
    said = io.StringIO()
    with contextlib.redirect_stdout(said): cb, = precision(gpu, 'bf16')
    assert cb.amp_mode.value == 'fp16'
    assert said.getvalue() == ('This GPU computes bf16 only by emulation, many times slower: '
                               'fp16 is taken.\n')
    with contextlib.redirect_stdout(said): assert fast.native_precision(gpu, 'fp16') == 'fp16'
    assert said.getvalue().count('\n') == 1, 'said once'


@pytest.mark.parametrize('amp', ['fp16', 'bf16'])
def test_a_trial_is_what_is_trained(amp):
    "Both players at once, at the full size, with the average and the callbacks that the recipe asks for"
    seen = []
    class Sees(Callback):
        order = 99
        def after_step(self):
            params = list(self.model.parameters())
            seen.append((self.x.shape, all(p.grad is not None for p in params),
                         sorted(type(cb).__name__ for cb in self.learn.cbs)))
    changed = replace(recipe, sizes=(16, 32), old=.5, clip=1., critic_warmup=5, n_critic=3)
    for gan in True, False:
        seen.clear()
        trial_step(changed, 3, cpu, amp, gan=gan, cbs=[Sees()])
        assert len(seen) == 2 and all(shape == (3, 1, 32, 32) and whole for shape, whole, _ in seen)
        names = set(seen[0][2])
        assert {'EMA', 'ChannelsLast', 'Old', 'GradientClip', 'AnyDeviceMixedPrecision'} <= names
        assert ('Turns' in names) == gan


def test_minutes_of_a_second_stage_count_for_the_trial(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(run_module, 'auto_bs', lambda recipe, device, photos, amp, gan: asked.append(gan) or 2)
    quiet(train, 'bundled', recipe, tmp_path/'run', device='cpu', bs='auto', pretrain_epochs=1,
          gan_epochs=0, gan_minutes=.001)
    assert asked == [True]


def test_a_smaller_batch_is_tried_when_the_memory_is_free_again():
    alive = []
    class Big: pass
    def step(bs):
        assert not [r for r in alive if r() is not None], 'the last trial is still in the memory'
        big = Big()
        big.circle = big
        alive.append(weakref.ref(big))
        if bs > 4: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.')
    assert largest_bs(step, 16) == 4 and len(alive) > 3
    assert auto_bs(recipe, cpu, 100) == recipe.bs


def test_weights_are_finite():
    net = torch.nn.BatchNorm2d(2)
    assert weights_are_finite(net)
    net.running_var[1] = float('inf')
    assert not weights_are_finite(net)
