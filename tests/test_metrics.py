"""Every figure against somebody else's implementation, within 1e-4; and the way of real weights,
tried with random ones in their place."""
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import nn

from colorgan.color import get_space, rgb_to_lab
from colorgan.engine.callbacks import ColourMetrics
from colorgan.colour.metrics import colour_scores, hue_histogram, score_photos
from colorgan.photos.sources import bundled_photos
from colorgan.photos.files import open_photo

sizes = (97, 71), (64, 64), (11, 40)


def pairs(size):
    """Bundled photos and what noise, a pale copy and another photo make of them: two lists of
    arrays in [0, 1], shape (h, w, 3)"""
    photos = [np.asarray(open_photo(p).resize(size)) / 255 for p in bundled_photos()]
    noise = np.random.default_rng(0).normal(0, .1, photos[0].shape)
    changed = [lambda a: np.clip(a + noise, 0, 1),
               lambda a: (a + a.mean(-1, keepdims=True)) / 2, lambda a: photos[0]]
    return [f(a) for a in photos for f in changed], [a for a in photos for _ in changed]


def batch(arrays): return torch.tensor(np.stack(arrays), dtype=torch.float32).permute(0, 3, 1, 2)


def colourful(a, f=lambda v: v):
    r, g, b = np.moveaxis(a, -1, 0) * 255
    rg, yb = f(r - g), f((r + g) / 2 - b)
    return np.sqrt(np.var(rg) + np.var(yb)) + .3 * np.sqrt(np.mean(rg)**2 + np.mean(yb)**2)


def by_others(a, t):
    "The figures of one photo `a` for the truth `t`"
    lab, true = rgb2lab(a), rgb2lab(t)
    d = (lab - true)[..., 1:]
    return dict(ab=np.linalg.norm(d, axis=-1).mean(),
                psnr=min(peak_signal_noise_ratio(t, a, data_range=1), 100) if (a != t).any()
                else 100,
                ssim=structural_similarity(t, a, channel_axis=-1, data_range=1,
                                           gaussian_weights=True, sigma=1.5,
                                           use_sample_covariance=False),
                de2000=deltaE_ciede2000(true, lab).mean(), cf=colourful(a),
                cf_abs=colourful(a, np.abs),
                warm=d.mean((0, 1)) @ (.5, 3**.5 / 2))


@pytest.mark.parametrize('size', sizes)
def test_figures(size):
    results, truths = pairs(size)
    scores = score_photos(batch(results), batch(truths))
    for i, (a, t) in enumerate(zip(results, truths)):
        for k, v in by_others(a, t).items():
            assert scores[k][i].item() == pytest.approx(v, abs=1e-4), k


def test_psnr_by_torchmetrics():
    functional = pytest.importorskip('torchmetrics.functional.image')
    results, truths = (batch(x) for x in pairs((97, 71)))
    ours = score_photos(results, truths)['psnr']
    theirs = functional.peak_signal_noise_ratio(results, truths, data_range=1., dim=(1, 2, 3),
                                                reduction='none')
    assert ours.tolist() == pytest.approx(theirs.clamp(max=100).tolist(), abs=1e-4)


def test_hue_histogram():
    results, _ = pairs((97, 71))
    lab = rgb_to_lab(batch(results))
    for h, (a, b) in zip(hue_histogram(lab[:, 1:]), lab[:, 1:].double().numpy()):
        angle = np.degrees(np.arctan2(b, a))[np.hypot(a, b) >= 8] % 360
        theirs = np.histogram(angle, 36, (0, 360))[0] / a.size
        assert h.tolist() == pytest.approx([*theirs, 1 - theirs.sum()], abs=1e-4)


class Small(nn.Module):
    "A network of the size of a test that stands in for Inception"
    num_features = 12
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(1),
                                 nn.Flatten())
    def forward(self, x): return self.net(x.float() / 255)


def sets():
    "Two sets of photos as bytes"
    torch.manual_seed(0)
    x = torch.rand(40, 3, 48, 48) * torch.rand(40, 3, 1, 1)
    return [(t * 255).round().byte() for t in (x, x.roll(3, 0) ** 1.3)]


def test_sets_are_compared_as_by_torchmetrics():
    from colorgan.judge.networks import inception_score, set_scores
    fid = pytest.importorskip('torchmetrics.image.fid')
    inception = pytest.importorskip('torchmetrics.image.inception')
    net, (real, fake) = Small().eval(), sets()
    theirs = fid.FrechetInceptionDistance(feature=net, input_img_size=(3, 48, 48))
    theirs.update(real, real=True)
    theirs.update(fake, real=False)
    score = inception.InceptionScore(feature=net, splits=1)
    score.update(fake)
    with torch.no_grad():
        views = [dict(lite=net(x), inception=net(x), logits=net(x)) for x in (fake, real)]
    ours = set_scores(*views)
    assert ours['fid'] == ours['frechet'] == pytest.approx(theirs.compute().item(), abs=1e-4)
    assert inception_score(views[0]['logits'], 1) == pytest.approx(score.compute()[0].item(),
                                                                   abs=1e-4)


@pytest.fixture
def hub(tmp_path):
    "An empty cache of weights, in the place of torch's"
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path/'hub')
    (tmp_path/'hub'/'checkpoints').mkdir(parents=True)
    yield tmp_path/'hub'/'checkpoints'
    torch.hub.set_dir(before)


def test_fid_and_inception_score_with_weights(hub):
    """Random weights lie where the real ones would; what is seen with them is what
    torchmetrics sees for its distance and its score"""
    fid = pytest.importorskip('torchmetrics.image.fid')
    extractor = pytest.importorskip('torch_fidelity.feature_extractor_inceptionv3')
    from colorgan.judge.networks import InceptionView
    torch.manual_seed(0)
    weights = hub/Path(extractor.URL_INCEPTION_V3).name
    torch.save(random_inception(extractor, hub), weights)
    photos = sets()[0][:3]
    vectors, logits = InceptionView()(photos / 255)
    theirs = fid.FrechetInceptionDistance(2048,
                                          feature_extractor_weights_path=str(weights)).inception(photos)
    assert vectors.shape == (3, 2048) and torch.allclose(vectors, theirs,
                                                         atol=1e-4) and vectors.std(0).max() > 1e-3
    theirs = fid.NoTrainInceptionV3('inception-v3-compat', ['logits_unbiased'],
                                    str(weights))(photos)
    assert logits.shape == (3, 1008) and torch.allclose(logits, theirs,
                                                        atol=1e-4) and logits.std() > 1e-3


def random_inception(extractor, folder):
    "A state dict for torch-fidelity's Inception"
    class Empty(extractor.FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *args, **kw):
            for p in self.parameters():
                if p.ndim > 1: nn.init.kaiming_normal_(p)
            self.own = self.state_dict()
    torch.save({}, folder/'empty.pth')
    return Empty('inception-v3-compat', ['2048'], str(folder/'empty.pth')).own


def test_lpips_with_weights(hub):
    lpip = pytest.importorskip('torchmetrics.image.lpip')
    from torchvision.models import AlexNet_Weights, alexnet
    from colorgan.judge.networks import LPIPS
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), hub/Path(AlexNet_Weights.DEFAULT.url).name)
    x, y = (t[:4] / 255 for t in sets())
    x, y = (nn.functional.interpolate(t, (80, 70)) for t in (x, y))
    official = lpip.LearnedPerceptualImagePatchSimilarity('alex', normalize=True, reduction='mean')
    assert LPIPS()(x, y).mean().item() == pytest.approx(official(x, y).item(), abs=1e-4)


def test_without_a_network_it_is_said_quickly(hub, capsys, monkeypatch):
    "A server that never answers, for everything: three short sentences, long before a time-out of minutes"
    for m in ('torch_fidelity', 'onnxscript'): pytest.importorskip(m)
    from colorgan import core
    from colorgan.nets import encoder
    from colorgan.judge import networks as perceptual
    encoder.say_once.cache_clear()
    monkeypatch.setattr(core, 'urlopen', lambda *args, **kw: time.sleep(60))
    monkeypatch.setattr(perceptual, 'timm_state', lambda name: None)
    for m in perceptual.Judges.modules: __import__(m)
    began = time.time()
    judges = perceptual.Judges()
    assert time.time() - began < 20 and (judges.lite, judges.lpips,
                                         judges.inception) == (None, None, None)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and all('left out: ' in s and len(s) < 140 for s in said), said


def test_the_judge_is_written_for_onnxruntime_once_and_sees_the_same_without_it(tmp_path, monkeypatch):
    "Kept with the downloads; where nothing can be kept, or the file is broken, torch sees the photos"
    pytest.importorskip('onnxscript')
    import timm
    from colorgan.judge import networks
    torch.manual_seed(0)
    state, rgb = timm.create_model('tf_efficientnet_lite0').state_dict(), torch.rand(2, 3, 48, 64)
    monkeypatch.setattr(networks, 'timm_state', lambda name: state)

    def seen(folder):
        monkeypatch.setenv('COLORGAN_DATA', str(folder))
        lite = networks.lite_view()
        return lite.session, lite(rgb)

    session, vectors = seen(tmp_path)
    file, = (tmp_path/'judges').iterdir()
    written = file.stat().st_mtime_ns
    assert session and seen(tmp_path)[0] and file.stat().st_mtime_ns == written
    file.write_bytes(b'broken')
    (tmp_path/'file').touch()
    for folder in tmp_path, tmp_path/'file':
        session, by_torch = seen(folder)
        assert session is None and torch.allclose(by_torch, vectors, atol=1e-4)


@pytest.mark.parametrize('stage', ['pretrain', 'gan'])
def test_held_out_photos_are_watched_as_the_average_sees_them(stage):
    from colorgan.data import get_dls
    from colorgan.engine.learner import EMA
    from colorgan.engine.order import callback_of
    from colorgan.gan import gan_learner
    from colorgan.generator import create_gen
    from colorgan.pretrain import pretrain_learner
    from colorgan.recipes import replace
    recipe = replace('pix2pix', space='lab', size=32, bs=2, ema=.5, gen_kw=dict(base=4),
                     critic_kw=dict(base=4))
    torch.manual_seed(0)
    dls, gen = get_dls('bundled', size=32, bs=2, space='lab', valid=.4,
                       device='cpu'), create_gen(recipe)
    learn = (pretrain_learner if stage == 'pretrain' else gan_learner)(dls, recipe, gen)
    watch = ColourMetrics(n=3, every=2, ema=callback_of(learn, EMA))
    learn.add_cb(watch)
    scored = {}
    class Live(type(watch)):
        "What the generator that is trained, not its average, would score"
        order, run_valid = 46, False
        def before_fit(self): self.batch = watch.batch
        def after_batch(self):
            if self.train_iter % 2 == 0: scored[self.train_iter] = figures(gen, watch.batch)
        def after_validate(self): pass
        def after_fit(self): pass
    learn.add_cb(Live())
    learn.fit(2)
    assert [h['step'] for h in watch.history] == [2, 2, 4, 4] and len(scored) == 2
    for h in watch.history:
        if h['step'] in scored:
            assert abs(h['ab'] - scored[h['step']]['ab']) > 1e-4, 'the average is not what is trained'
    final = figures(gen, watch.batch)
    for k in watch.keys:
        assert watch.history[-1][k] == pytest.approx(final[k], abs=1e-4), (
            'after training the generator holds the average')
    x, _ = dls.valid.one_batch()
    assert len(watch.batch[0]) == 3 and torch.equal(watch.batch[0][:2], x[:2])
    assert [n for n in learn.recorder.metric_names
            if n.startswith('watched_')] == [f'watched_{k}' for k in watch.keys]


@torch.no_grad()
def figures(gen, batch):
    mode = gen.training
    scores = colour_scores(get_space('lab'), batch[0], gen.eval()(batch[0]), batch[1])
    gen.train(mode)
    return {k: v.mean().item() for k, v in scores.items()}


def test_evaluate_on_the_command_line(tmp_path):
    for i, p in enumerate(bundled_photos()[:4]):
        open_photo(p).resize((60 + i, 48)).save(tmp_path/f'{i}.png')
    (tmp_path/'broken.png').write_text('no photo')
    colorgan = Path(sys.executable).with_name('colorgan')
    done = subprocess.run([colorgan, 'evaluate', tmp_path, '--weights', 'light', '--weights',
                           'light', '--size', '48', '--work', '48', '--sizes', '32,48,64',
                           '--old', '--json', tmp_path/'r.json', '--sheet', tmp_path/'s.png',
                           '--frontier', tmp_path/'f.png'], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    r = json.loads((tmp_path/'r.json').read_text())
    assert (r['n'], r['size'], r['work'], len(r['skipped']), len(r['others'])) == (4, 48, 48, 1, 1)
    assert r['sizes'].keys() == {'32-48', '32-64', '48-64',
                                 'n'} and {'none', 'grain', 'jpeg', 'grey'} < r['old'].keys()
    assert r['old']['none'] == pytest.approx(r['ab'], abs=.2) and r['ci']['ab'][0] <= r['ab'] <= r['ci']['ab'][1]
    assert {k: r['others'][0][k] for k in ('ab', 'psnr')} == {k: r[k] for k in ('ab', 'psnr')}
    for words in 'between working sizes: 32-48', 'made old by: none', 'skipped', 'mean ab distance':
        assert words in done.stdout
    assert Image.open(tmp_path/'s.png').width > 3 * 3 * 150 and Image.open(tmp_path/'f.png').width > 400
    as_it_is = next(row for row in r['frontier'] if row['factor'] == 1)
    assert as_it_is['ab'] == pytest.approx(r['ab'] / r['ab_grey'])
    assert as_it_is['cf'] == pytest.approx(r['cf'] / r['cf_truth'])
    assert r['others'][0]['frontier'] == r['frontier'] and 'chroma times' in done.stdout
    for wrong, why in ('--sizes 32', 'at least two'), ('--sizes 32,x',
                                                       'list of numbers'), ('--protocol mine',
                                                       'ddcolor'):
        done = subprocess.run([colorgan, 'evaluate', tmp_path, *wrong.split()],
                              capture_output=True, text=True)
        assert done.returncode == 2 and why in done.stderr and done.stderr.count('\n') == 1, done.stderr
