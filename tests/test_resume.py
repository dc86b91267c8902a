"""A training that is killed at any moment and resumed ends with the same weights, bit by bit, as
one that was left alone. (All on the CPU: a GPU rounds the sums of one and the same step in changing
order. `test_cuda.py` says how close it comes.)"""
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time

import pytest
import torch

from colorgan.engine.checkpoint import Checkpoints
from colorgan.core import ColorganError
from colorgan.nets.weights import find_weights
from colorgan.recipes import replace
from colorgan.run import train

recipe = replace('pix2pix', size=32, bs=2, gen_kw=dict(base=4),
                 critic_kw=dict(base=4, n_down=1), pretrain_epochs=3, gan_epochs=3, ema=.9,
                 n_critic=2,
                 schedule='cosine', old=.5)
two_stages = replace(recipe, name='two-stages')


def training(out, minutes=0., **kwargs):
    """Train in a process of its own, from the beginning or from the newest checkpoint; a
    checkpoint after every batch."""
    torch.set_num_threads(1)
    sys.stdout = open(os.devnull, 'w')
    train('bundled', two_stages, out, device='cpu', resume=True, checkpoint_minutes=minutes,
          **kwargs)


def start(out, **kwargs):
    p = multiprocessing.get_context('forkserver').Process(target=training, args=(out,),
                                                          kwargs=kwargs)
    p.start()
    return p


def weights(run):
    return hashlib.sha256((find_weights(run)/'model.safetensors').read_bytes()).hexdigest()


def log(run):
    return [{k: v for k, v in json.loads(line).items() if k != 'seconds'}
            for line in (run/'log.jsonl').read_text().splitlines()]


def kill(p, condition, patience=60):
    "SIGKILL as soon as `condition()` holds; whether it still lived."
    end = time.monotonic() + patience
    while p.is_alive() and not condition() and time.monotonic() < end: time.sleep(.001)
    p.kill()
    p.join()
    return p.exitcode == -signal.SIGKILL


@pytest.fixture(scope='session')
def alone(tmp_path_factory):
    "A run that nobody disturbed, which wrote no checkpoint on its way."
    out = tmp_path_factory.mktemp('alone')/'run'
    p = start(out, minutes=60.)
    p.join()
    assert p.exitcode == 0
    return out


def finish(out, alone):
    p = start(out)
    p.join()
    assert p.exitcode == 0
    assert weights(out) == weights(alone)
    assert log(out) == log(alone)
    assert Checkpoints(out/'checkpoints').files() == []


def last(out): return max((int(f.stem) for f in (out/'checkpoints').glob('*.pt')), default=-1)


def test_killed_in_each_stage_and_while_writing(tmp_path, alone):
    out = tmp_path/'run'
    assert kill(start(out), lambda: 4 <= last(out) < 10**9), 'killed in the first stage'
    assert kill(start(out), lambda: last(out) > 10**9 + 3), 'killed in the second'
    assert kill(start(out), lambda: any((out/'checkpoints').glob('*.part'))), 'killed while it wrote a checkpoint'
    finish(out, alone)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path, alone):
    """A process lives for up to one undisturbed run's time; a run that gets finished in spite
    of it is checked, and the next one begins."""
    begun = time.monotonic()
    start(tmp_path/'undisturbed').join()
    whole, dice, killed, runs = time.monotonic() - begun, random.Random(0), 0, 0
    while killed < 20:
        at = time.monotonic() + dice.uniform(.05, 1) * whole
        if kill(start(tmp_path/f'run{runs}'), lambda at=at: time.monotonic() > at): killed += 1
        else:
            finish(tmp_path/f'run{runs}', alone)
            runs += 1
    finish(tmp_path/f'run{runs}', alone)


def test_damaged_checkpoint_falls_back(tmp_path, alone, capsys):
    out = tmp_path/'run'
    kill(start(out), lambda: len(list((out/'checkpoints').glob('*.pt'))) > 1 and last(out) > 3)
    newest = Checkpoints(out/'checkpoints').files()[-1]
    newest.write_bytes(newest.read_bytes()[:-500])
    assert Checkpoints(out/'checkpoints').load()['learner']['train_iter'] < int(newest.stem)
    assert (f'The checkpoint {newest.name} is damaged and now called {newest.name}.damaged; '
            'the checkpoint before it is taken.') in capsys.readouterr().out
    finish(out, alone)


def test_second_process_is_refused(tmp_path):
    out = tmp_path/'run'
    p = start(out)
    while not (out/'run.json').exists() and p.is_alive(): time.sleep(.01)
    with pytest.raises(ColorganError, match='another process is training in'):
        train('bundled', two_stages, out, device='cpu', resume=True)
    kill(p, lambda: True)


def test_another_command_is_refused(alone):
    with pytest.raises(ColorganError, match='already holds a run'):
        train('bundled', two_stages, alone, device='cpu')
    with pytest.raises(ColorganError, match='was begun with bs 2, not 3'):
        train('bundled', replace(two_stages, bs=3), alone, device='cpu', resume=True)
    with pytest.raises(ColorganError, match='was begun with seed 42, not 1'):
        train('bundled', two_stages, alone, device='cpu', resume=True, seed=1)


def test_the_minutes_of_a_stage_that_has_not_ended_may_change(tmp_path, capsys):
    out = tmp_path/'run'
    checkpoints = lambda: [int(f.stem) for f in out.glob('checkpoints/*.pt')]

    def go(*minutes):
        return train('bundled', two_stages, out, device='cpu', resume=True,
                     **dict(zip(('pretrain_minutes', 'gan_minutes'), minutes)))

    kill(start(out, pretrain_minutes=600, gan_minutes=600), checkpoints)
    for minutes in (None, 600), (0, 600), (600, None):
        with pytest.raises(ColorganError, match='was begun with'): go(*minutes)
    kill(start(out, pretrain_minutes=.02, gan_minutes=600), lambda: max(checkpoints()) > 10**9)
    with pytest.raises(ColorganError, match='was begun with pretrain_minutes 0.02, not 600'): go(600, 600)
    go(.02, .01)
    assert f'From now on {out} has gan_minutes 0.01.' in capsys.readouterr().out
    settings = json.loads((out/'run.json').read_text())
    assert settings['finished'] and (settings['pretrain_minutes'], settings['gan_minutes']) == (.02, .01)
    with pytest.raises(ColorganError, match='was begun with gan_minutes 0.01, not 9'): go(.02, 9)


def test_ctrl_c_keeps_what_was_trained(tmp_path, alone):
    out = tmp_path/'run'
    p = start(out, minutes=60.)
    while not (out/'log.jsonl').exists() and p.is_alive(): time.sleep(.001)
    os.kill(p.pid, signal.SIGINT)
    p.join()
    assert p.exitcode == 1
    assert find_weights(out) == out/'model'
    finish(out, alone)


def test_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path):
    out = tmp_path/'run'
    with pytest.raises(ColorganError, match=r'the loss of step \d+ is not finite'):
        train('bundled', replace(two_stages, lam=1e38, pixel_loss='mse', ema=0.), out,
              device='cpu', pretrain_epochs=0, gan_epochs=3, gen_lr=1e30)
    assert torch.load(out/'nonfinite.pt', weights_only=True)['x'].shape[1:] == (1, 32, 32)
    assert not (out/'model').exists()
