"""Every recipe learns, is saved, loaded and exported, colorizes, and takes whatever `colorgan train` can be told."""
import json
import shlex
import sys
import tempfile

import numpy as np
import pytest
import torch
from PIL import Image

from colorgan import loss
from colorgan.engine.callbacks import Schedule
from colorgan.cli import parser
from colorgan.colorizer import Colorizer, OnnxNet, TorchNet
from colorgan.data import get_dls, split_photos
from colorgan.gan import gan_learner
from colorgan.generator import create_gen
from colorgan.colour.lab import AB_HALF
from colorgan.core import ColorganError
from colorgan.judge import race
from colorgan.photos.sources import bundled_photos
from colorgan.pretrain import pretrain_learner
from colorgan.nets.weights import load_model, read_model_json, save_model
from colorgan.recipes import recipes, replace

unet, patches, whole = dict(base=16), dict(base=8, n_down=1), dict(base=8)
small = {'resnet18-two-stage': ({}, patches), 'pix2pix': (unet, patches),
         'pix2pix-instance': (unet, patches), 'pix2pix-instance-wgan-gp': (unet, patches),
         'pix2pix-rgb': (unet, patches), 'unet-lab-mse': (unet, patches),
         'vgg16-latent': ({}, whole), 'sagan-unet': (dict(width=.125), whole),
         'basic': ({}, {}),
         'labnet': ({}, {}), 'preincep': (dict(classifier='resnet10t', look=64),
                                          {}), 'preres': (dict(classifier='resnet10t',
                                                               look=64), {}),
         **{name: (dict(width=.25), patches) for name in ('light', 'light-l1', 'light-plain')}}


def tiny(name, **changes):
    "The recipe with few channels, for 32 px."
    r = recipes[name]
    gen_kw, critic_kw = small[name]
    return replace(r, size=32, bs=2, gen_kw={**r.gen_kw, **gen_kw},
                   critic_kw={**r.critic_kw, **critic_kw}, critic_at=1, **changes)


def test_the_table_is_complete(): assert set(small) == set(recipes)


@pytest.mark.parametrize('name', ['light', 'light-l1'])
def test_the_weights_in_the_package_are_what_their_commands_make(name):
    """The last training among the commands in `model.json` takes the recipe of the catalogue, with
    the fields that it sets, and with the batch norms held, as `init` has it."""
    info = read_model_json(name)
    *_, last = (shlex.split(line) for line in info['command'].splitlines() if line.startswith('colorgan train'))
    said = vars(parser().parse_args(last[1:]))
    changes = {k: said[k] for k in ('pretrain_epochs', 'gan_epochs') if said[k] is not None}
    assert said['recipe'] == name and said['init']
    changes |= dict(w.split('=') for w in said['set'] or ())
    assert info['recipe'] == replace(name, freeze_bn='all', **changes)


@pytest.fixture(scope='module')
def batch():
    return {s: get_dls(bundled_photos()[:2], size=32, bs=2, space=s,
                       valid=bundled_photos()[:2], device='cpu', augment=False)
                       for s in ('lab', 'rgb')}


@pytest.fixture(params=recipes, scope='module')
def trained(request, batch):
    """A recipe, its generator after some steps on one batch, and the folder it was saved to.
    VGG16, without norms, needs smaller steps."""
    torch.manual_seed(0)
    recipe = tiny(request.param, n_critic=1, critic_warmup=0, old=0., frozen=0, ema=0.,
                  warmup=0., drop_at=0., pretrain_lr=2e-3, gen_lr=2e-3, critic_lr=2e-4,
                  encoder_lr_mult=.05 if request.param == 'vgg16-latent' else 1.)
    gen = create_gen(recipe, pretrained=False)
    learn = (gan_learner if recipe.gan_epochs
             else pretrain_learner)(batch[recipe.space], recipe, gen)
    epochs, cbs = (30 if request.param == 'resnet18-two-stage' else 60,
                   Schedule(learn.clock, 'cosine') if request.param == 'vgg16-latent'
                   else None)
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, cbs=cbs)
    with tempfile.TemporaryDirectory() as folder: yield recipe, gen.eval(), save_model(folder, gen, recipe)


def test_overfits_one_batch(trained, batch):
    recipe, gen, _ = trained
    dls = batch[recipe.space]
    x, y = dls.valid.one_batch()
    with torch.no_grad(): off = (dls.space.ab(gen(x)) - dls.space.ab(y)).norm(dim=1).mean()
    grey = dls.space.ab(y).norm(dim=1).mean()
    assert off < .6 * grey, f'{off:.1f} from the truth, and grey is {grey:.1f}'


def test_reloads_to_the_same_output(trained):
    recipe, gen, folder = trained
    x = torch.rand(2, 1, 64, 32) * 2 - 1
    again = load_model(folder)
    assert again.recipe == recipe
    with torch.no_grad(): assert torch.equal(again(x), gen(x))


twins = 'pix2pix-instance-wgan-gp', 'unet-lab-mse', 'labnet', 'preres', 'light-l1', 'light-plain'


@pytest.mark.parametrize('trained',
                         [pytest.param(n, marks=pytest.mark.slow if n in twins else ())
                          for n in recipes], indirect=True)
def test_exports_the_same_output(trained, tmp_path):
    "Those that have another's network, trained otherwise, take their turn in the long form."
    from colorgan.use.onnx import export_onnx
    _, gen, folder = trained
    export_onnx(folder, tmp_path/'net.onnx', chroma_only=True)
    L = np.random.default_rng(0).random((1, 1, 64, 96), dtype=np.float32) * 100
    assert np.abs(OnnxNet(tmp_path/'net.onnx')(L) - TorchNet(gen)(L)).max() < 1e-3 * AB_HALF


def test_colorizes_a_photo_of_odd_size(trained):
    photo = Image.open(bundled_photos()[0]).convert('RGB').resize((61, 43))
    out = Colorizer(trained[2])(photo)
    assert out.size == (61, 43) and not np.array_equal(out, photo.convert('L').convert('RGB'))


@pytest.mark.parametrize('name, gen_kw, critic_kw, more', [
    ('vgg16-latent', dict(variational=True), {}, {}), ('vgg16-latent', {}, {},
                                                       dict(adv_loss='lsgan')),
                                                       ('vgg16-latent', {}, {},
                                                        dict(adv_loss='wgan-gp')),
    ('sagan-unet', dict(variational=True), {}, {}), ('sagan-unet', dict(residual=True), {},
                                                     {}), ('sagan-unet', {}, dict(lab=True),
                                                     dict(adv_loss='wgan-gp')),
    ('sagan-unet', {}, {}, dict(pretrain_epochs=1, pretrain_for='grey')),
    ('resnet18-two-stage', {}, {}, dict(pretrain_for='grey'))])
def test_variants_train(name, gen_kw, critic_kw, more, batch, tmp_path):
    "A step of the stages, after which every weight that learns has moved."
    recipe = tiny(name, **more)
    recipe = replace(recipe, gen_kw={**recipe.gen_kw, **gen_kw},
                     critic_kw={**recipe.critic_kw, **critic_kw}, n_critic=1)
    gen = create_gen(recipe, pretrained=False)
    before = {k: p.detach().clone() for k, p in gen.named_parameters()}
    learners = [f for f, n in ((pretrain_learner, recipe.pretrain_epochs),
                               (gan_learner, recipe.gan_epochs)) if n]
    for f in learners:
        learn = f(batch[recipe.space], recipe, gen)
        with learn.no_bar(), learn.no_logging(): learn.fit(2)
        assert np.isfinite(learn.recorder.values[-1][0])
    assert [k for k, p in gen.named_parameters() if torch.equal(p, before[k])] == []


def cli(monkeypatch, capsys, *words):
    "Exit status, what was printed, and the complaints of `colorgan`."
    from colorgan.cli import main
    monkeypatch.setattr(sys, 'argv', ['colorgan'])
    status = main([str(w) for w in words])
    out, err = capsys.readouterr()
    return status, out, err


def settings(name):
    "The small recipe on the command line."
    r = tiny(name)
    return [f'{k}={getattr(r, k)}' for k in ('gen_kw', 'critic_kw', 'critic_at')]


flags = ['--size', 32, '--bs', 2, '--pretrain-epochs', 1, '--gan-epochs', 1, '--items', 6,
         '--seed', 1, '--loss', 'huber', '--lr', '1e-4', '--device', 'cpu', '--keep', 1,
         '--checkpoint-minutes', 1, '--amp', 'fp32', '--resume', '--no-cache']


@pytest.mark.parametrize('name',
                         ['pix2pix', 'preincep',
                          pytest.param('resnet18-two-stage', marks=pytest.mark.slow),
                                  *(pytest.param(n, marks=pytest.mark.slow)
                                    for n in recipes if n not in ('pix2pix', 'preincep',
                                                                  'resnet18-two-stage'))])
def test_takes_every_flag(name, tmp_path, monkeypatch, capsys):
    "A stage that a recipe lacks is skipped with one sentence; the fields are stored with the model."
    status, out, err = cli(monkeypatch, capsys, 'train', 'bundled', '--recipe', name, '--out',
                           tmp_path/'run', *flags, '--set', *settings(name), 'lam=10')
    assert (status, err) == (0, '')
    lacking = [k for k in ('pretrain', 'gan') if not getattr(recipes[name], f'{k}_epochs')]
    assert [s for s in out.splitlines()
            if 'skipped' in s] == [f'The recipe {name} has no {k} stage: skipped.'
            for k in lacking]
    stored = read_model_json(tmp_path/'run')['recipe']
    assert (stored.pixel_loss, stored.lam, stored.gen_lr, stored.name) == ('huber', 10., 1e-4, name)


@pytest.mark.parametrize('words, said', [
    (['--set', 'lamb=10'],
     "a recipe has no field 'lamb': choose one of name, source, space"), (['--set', 'lam'],
     '--set takes FIELD=VALUE'),
    (['--set', 'lam=-1'], "lam cannot be '-1'"), (['--loss', 'l3'],
                                                  'choose one of l1, mse, huber, ciede2000'),
                                                  (['--lr', 'fast'], 'cannot be'),
    (['--recipe', 'pix3pix'], 'choose one of resnet18-two-stage'),
    (['--set', 'gen_kw={"depth": 3}'], "resnet18_unet takes no 'depth': it takes n_out")])
def test_what_a_recipe_lacks_is_answered_by_what_there_is(words, said, tmp_path, monkeypatch,
                                                          capsys):
    status, _, err = cli(monkeypatch, capsys, 'train', 'bundled', '--out', tmp_path/'run',
                         '--size', 32, '--no-cache', *words)
    assert (status, len(err.splitlines())) == (2, 1) and said in err
    assert not (tmp_path/'run').exists()


def test_the_rate_drops_and_the_critic_steps_twice(batch):
    "After two thirds, `sagan-unet` learns at a tenth of the rate, and its generator plays every second time."
    from fastai.callback.core import Callback
    recipe, turns = tiny('sagan-unet'), []
    learn = gan_learner(batch['rgb'], recipe, create_gen(recipe, pretrained=False))

    class Note(Callback):
        order = 72
        def before_step(self):
            turns.append((self.model.gen_turn,
                          round(self.opt.hypers[-1]['lr'] / recipe.critic_lr, 3)))
    with learn.no_bar(), learn.no_logging():
        learn.fit(9, cbs=[Schedule(learn.clock, 'const', drop_at=recipe.drop_at), Note()])
    assert [lr for _, lr in turns] == [1.] * 6 + [.1] * 3
    assert [t for t, _ in turns] == [True] * 6 + [False, True, False]


def test_the_critic_sees_lab_only_where_it_does_not_anyway():
    from colorgan.critic import create_critic
    with pytest.raises(ColorganError, match='in the space lab the critic sees Lab anyway'):
        create_critic(replace('pix2pix', critic_kw={'lab': True}))


def test_recipes_are_listed_with_what_they_cost(monkeypatch, capsys):
    status, out, _ = cli(monkeypatch, capsys, 'recipes')
    lines = out.splitlines()
    assert status == 0 and [s.split()[0] for s in lines[1:]] == list(recipes)
    assert [s.split()[1:3] for s in lines if s.startswith('resnet18-two-stage')] == [['31.1', 'M']]


def compare(out, **asked):
    "A comparison of one small recipe, whose row it returns."
    fields = [replace('pix2pix', bs=2, gen_kw=dict(base=8), critic_kw=dict(base=8, n_down=1))]
    ps = bundled_photos()
    usual = dict(data=ps[2:5], valid=ps[:2], photos=4, size=32)
    [row] = race.compare_recipes(out=out, names=fields, judges=False, **usual | asked)
    return row


def fails(*args, **kwargs): raise ColorganError('the disk is full')


def test_the_perceptual_loss_of_light_waits_for_the_second_stage(batch, monkeypatch):
    "In a recipe that says nothing of the first stage, it is there in both"
    seen = []
    monkeypatch.setattr(loss, 'PerceptualLoss', lambda space: lambda pred, y: seen.append(len(y)) or 0.)
    for recipe, expected in (tiny('light'), [0, 1]), (tiny('light', pretrain_perceptual=None), [1, 1]):
        gen, counts = create_gen(recipe), []
        for learner in pretrain_learner(batch['lab'], recipe, gen), gan_learner(batch['lab'], recipe, gen):
            seen.clear()
            with learner.no_bar(), learner.no_logging(): learner.validate()
            counts.append(len(seen))
        assert counts == expected


@pytest.fixture(scope='module')
def comparison(tmp_path_factory):
    "The folder of a comparison whose recipe failed at first, and both rows."
    out = tmp_path_factory.mktemp('comparison')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(race, 'train', fails)
        failed = compare(out, size=24)
    assert not (out/'pix2pix'/'result.json').exists() and 'the disk is full' in (out/'table.md').read_text()
    return out, failed, compare(out)


def test_a_recipe_that_failed_is_tried_again(comparison, monkeypatch):
    "One that has a result is not; a failure that an earlier version stored is none."
    out, failed, row = comparison
    assert failed == dict(recipe='pix2pix', failed='the disk is full') and row['photos'] == 4 and 'failed' not in row
    monkeypatch.setattr(race, 'train', fails)
    assert compare(out) == row
    monkeypatch.undo()
    there = out/'pix2pix'/'result.json'
    there.write_text(json.dumps(failed))
    assert compare(out)['ab'] == row['ab'] == json.loads(there.read_text())['ab']


def test_other_photos_are_another_comparison(comparison):
    "Even as many; what an earlier version wrote down has no fingerprint, and is compared in the rest."
    out, _, row = comparison
    ps = bundled_photos()
    for other in dict(data=ps[3:6]), dict(valid=ps[5:7]):
        with pytest.raises(ColorganError, match='was begun with other photos: give the same command'):
            compare(out, **other)
    rules = json.loads((out/'race.json').read_text())
    del rules['fingerprint']
    (out/'race.json').write_text(json.dumps(rules))
    assert compare(out)['ab'] == row['ab']
    with pytest.raises(ColorganError, match='was begun with size 32, not 64'): compare(out, size=64)


@pytest.mark.parametrize('asked, said', [
    (dict(seed=-1), 'seed cannot be -1'), (dict(photos=0), 'the budget in photos cannot be 0'),
    *((dict(photos=None, minutes=m), f'the budget in minutes cannot be {m}') for m in (0, -1, np.nan, np.inf)),
    (dict(size=4), 'size cannot be 4'), (dict(rows=0), 'rows cannot be 0'), (dict(shown='nowhere'), 'nowhere'),
    (dict(device='tpu'), "no device 'tpu'")])
def test_a_mistake_is_found_before_the_training(asked, said, tmp_path):
    with pytest.raises(ColorganError, match=said): compare(tmp_path/'out', **asked)
    assert not (tmp_path/'out').exists()


@pytest.mark.parametrize('asked', [dict(photos=4), dict(photos=None, minutes=1, seed=7)])
def test_no_recipe_is_judged_by_what_it_trained_on(asked, tmp_path, monkeypatch):
    trained, judged = [], []
    def note(data, *args, valid, seed, items=None, **kwargs): trained.extend(split_photos(data, valid, items, seed)[0])
    def judge(weights, data, *args, device, **kwargs):
        assert device == 'cpu'
        judged.extend(data)
        fails()
    monkeypatch.setattr(race, 'train', note)
    monkeypatch.setattr(race, 'evaluate', judge)
    compare(tmp_path, data=bundled_photos(), valid=.4, device='cpu', **asked)
    assert trained and len(judged) == 3 and not set(trained) & set(judged)


def test_sheet_of_photos_some_of_which_cannot_be_read(tmp_path):
    (tmp_path/'broken.jpg').write_bytes(b'no photo')
    race.draw([], tmp_path, [tmp_path/'broken.jpg', bundled_photos()[0]], 32)
    assert (tmp_path/'sheet.png').stat().st_size > 1000
    with pytest.raises(ColorganError, match='not one of the photos for the sheet can be read'):
        race.draw([], tmp_path, [tmp_path/'broken.jpg'], 32)


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on(tmp_path):
    "Killed while a recipe trains, it picks that one up and does not train the others again."
    import subprocess
    import time
    code = f"""
from colorgan.photos.sources import bundled_photos
from colorgan.judge.race import compare_recipes
from colorgan.recipes import replace
small = dict(bs=2, gen_kw=dict(base=8), critic_kw=dict(base=8, n_down=1))
ps = bundled_photos()
compare_recipes(ps[2:], {str(tmp_path/'out')!r},
                [replace('pix2pix', name=n, **small) for n in 'ab'],
                photos=400, size=32, valid=ps[:2], judges=False)
"""
    p = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.DEVNULL)
    while p.poll() is None and not (tmp_path/'out'/'b'/'log.jsonl').exists(): time.sleep(.01)
    p.kill(), p.wait()
    done = tmp_path/'out'/'a'/'result.json'
    first = done.stat().st_mtime_ns
    assert not (tmp_path/'out'/'b'/'result.json').exists()
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL)
    assert done.stat().st_mtime_ns == first
    a, b = (json.loads((tmp_path/'out'/n/'result.json').read_text()) for n in 'ab')
    assert a['photos'] == b['photos'] and a['ab'] == b['ab']
    assert len((tmp_path/'out'/'table.csv').read_text().splitlines()) == 5 and (tmp_path/'out'/'sheet.png').exists()
