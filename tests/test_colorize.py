"""Photos in, photos out: their lightness, their formats, damaged ones, very large ones, and kills."""
import io
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import zipfile
import time
import venv
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from skimage.color import lab2rgb, rgb2lab

from colorgan.use.album import colorize_files
from colorgan.colour.chroma import cubic, join, luminance, resize_matrix
from colorgan.cli import main
from colorgan.colorizer import Colorizer, OnnxNet, TorchNet, colorize, digest
from colorgan.photos.files import read_photo
from colorgan.colour.hints import chroma_of
from colorgan.colour.lab import RGB_FROM_XYZ, WHITE, XYZ_FROM_RGB
from colorgan.core import ColorganError
from colorgan.photos.sources import bundled_photos
from colorgan.nets.weights import find_weights
from colorgan.recipes import recipes

root = Path(__file__).resolve().parent.parent
photos = {p.stem: p for p in bundled_photos()}


def waves(L):
    "Chroma for want of a network: strong, smooth, and of all hues."
    h, w = L.shape[2:]
    y, x = np.mgrid[:h, :w] / 9
    return np.stack([80 * np.sin(x + L[:, 0] / 30),
                     80 * np.cos(y)[None] * np.ones_like(L[:, 0])], 1).astype(np.float32)


toy = Colorizer(waves)


@pytest.fixture(scope='module')
def cat(): return Image.open(photos['chelsea']).convert('RGB')


def lightness(im): return rgb2lab(np.asarray(im.convert('RGB')))[..., 0]


@pytest.mark.parametrize('saturation', [.5, 1, 3])
@pytest.mark.parametrize('name', photos)
def test_lightness_is_kept(name, saturation):
    im = read_photo(photos[name]).image
    im = im.crop((0, 0, min(im.width, 400), min(im.height, 300)))
    for source in (im, im.convert('L')):
        off = np.abs(lightness(toy(source, saturation)) - lightness(source))
        assert np.percentile(off, 99.9) < 1


@pytest.mark.parametrize('name', photos)
def test_join_is_lab_where_the_colour_exists(name):
    "The photo's own chroma, brought to its size by Pillow and scikit-image, gives the same photo as ours."
    im = read_photo(photos[name]).image.crop((0, 0, 320, 240))
    warnings.filterwarnings('ignore', 'Conversion from CIE-LAB')
    ab = rgb2lab(np.asarray(im.resize((80, 60))))[..., 1:].transpose(2, 0, 1).astype(np.float32)
    big = [np.asarray(Image.fromarray(p).resize(im.size, Image.BICUBIC)) for p in ab]
    plain = lab2rgb(np.dstack([lightness(im), *big]))
    exists = (plain.min(2) > 0) & (plain.max(2) < 1)
    off = np.abs(plain * 255 - np.asarray(join(luminance(im), ab)))[exists]
    assert exists.mean() > .5 and np.percentile(off, 99.9) <= 1


def test_hue_is_kept_where_the_colour_does_not_exist():
    angle = np.arange(360) / 57.3
    y, ab = np.full((1, 360), 20_000,
                    np.uint16), 200 * np.stack([np.cos(angle), np.sin(angle)])[:, None]
    v = np.asarray(join(y, ab.astype(np.float32)))[0] / 255
    got, grey = np.where(v > .04045, ((v + .055) / 1.055) ** 2.4, v / 12.92), 20_000 / 65_535
    f = np.cbrt(grey) + np.stack([ab[0, 0] / 500, 0 * angle, -ab[1, 0] / 200], 1)
    asked = np.where(f > .2068966, f ** 3, (f - 16 / 116) / 7.787) * WHITE @ RGB_FROM_XYZ.T
    assert np.abs(got @ XYZ_FROM_RGB[1] - grey).max() < .005
    assert ((got.min(1) < .003) | (got.max(1) > .99)).all()
    cosine = (((got - grey) * (asked - grey)).sum(1)
              / np.linalg.norm(got - grey, axis=1) / np.linalg.norm(asked - grey, axis=1))
    assert cosine.min() > .999


def test_the_chroma_of_each_pixel_is_its_own(cat):
    "A photo twice as wide, mirrored, is colored like the photo and its mirror image if the chroma is."
    y, ab = luminance(cat), waves(np.full((1, 1, 30, 45), 50.))[0]
    both = join(np.hstack([y, y[:, ::-1]]), np.concatenate([ab, ab[:, :, ::-1]], 2))
    assert np.array_equal(np.asarray(both), np.asarray(both)[:, ::-1])


@pytest.mark.parametrize('n', [1, 2, 5, 64])
@pytest.mark.parametrize('m', [1, 3, 64, 200])
def test_resizing_keeps_what_is_flat(n, m):
    assert np.allclose(resize_matrix(n, m, cubic) @ np.ones(n), 1, atol=1e-5)


def test_colour_profile_is_applied(cat, tmp_path):
    rocket = Image.open(photos['rocket'])
    profile = ImageCms.ImageCmsProfile(io.BytesIO(rocket.info['icc_profile']))
    assert 'Adobe RGB' in ImageCms.getProfileDescription(profile)
    assert np.array_equal(read_photo(photos['rocket']).image,
                          ImageCms.profileToProfile(rocket, profile,
                                                    ImageCms.createProfile('sRGB')))
    grey = toy(photos['rocket'], saturation=0)
    result = ImageCms.ImageCmsProfile(io.BytesIO(grey.info['icc_profile']))
    assert 'sRGB' in ImageCms.getProfileDescription(result)


def test_broken_colour_profile_does_not_matter(cat, tmp_path):
    cat.save(tmp_path/'broken.png', icc_profile=b'no profile')
    assert np.array_equal(read_photo(tmp_path/'broken.png').image, cat)


@pytest.mark.parametrize('suffix', ['.tif', '.jpg', '.png', '.webp'])
@pytest.mark.parametrize('orientation', range(1, 9))
def test_orientation_is_applied_once(suffix, orientation, tmp_path):
    a = np.full((40, 64, 3), 30, np.uint8)
    a[:20, :16] = 220
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(a).save(tmp_path/f'a{suffix}', exif=exif)
    once = {1: a, 2: a[:, ::-1], 3: a[::-1, ::-1], 4: a[::-1], 5: a.transpose(1, 0, 2),
            6: np.rot90(a, -1), 7: a[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(a)}
    out = toy(tmp_path/f'a{suffix}', saturation=0)
    assert np.abs(np.asarray(out).astype(int) - once[orientation]).mean() < 4
    assert out.getexif().get(0x0112, 1) == 1
    out.save(tmp_path/'again.png', exif=out.info.get('exif'))
    assert np.abs(np.asarray(toy(tmp_path/'again.png',
                                 saturation=0)).astype(int) - once[orientation]).mean() < 4


def test_a_wrong_suffix_does_not_matter(cat, tmp_path):
    cat.save(tmp_path/'cat.jpg', 'PNG')
    assert toy(tmp_path/'cat.jpg').size == cat.size


def test_without_torch(cat, tmp_path):
    "A function, numpy and Pillow are enough."
    cat.resize((40, 30)).save(tmp_path/'cat.jpg')
    code = f"""import sys
sys.modules |= dict.fromkeys(['torch', 'fastai', 'matplotlib', 'skimage', 'safetensors', 'timm'])
import numpy as np
from colorgan.use.album import colorize_files
from colorgan.colorizer import Colorizer
colorize_files({str(tmp_path/'cat.jpg')!r}, {str(tmp_path/'out')!r}, Colorizer(lambda L: np.concatenate([L, -L], 1)))"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path/'out'/'cat.jpg').size == (40, 30)


def odd_bytes(rng, base):
    "A malformed or odd file: its name and its bytes."
    kind, data = rng.choice(list(base.items()))
    data, suffix = bytearray(data), kind.split('-')[0]
    how = rng.choice(['cut', 'flip', 'flip', 'insert', 'remove', 'zeros', 'suffix', 'name',
                      'header', 'repeat', 'nothing'])
    at, n = rng.randrange(len(data)), rng.randrange(1, 40)
    if how == 'cut': data = data[:at]
    if how == 'flip':
        for _ in range(n): data[rng.randrange(len(data))] = rng.randrange(256)
    if how == 'insert': data[at:at] = rng.randbytes(n)
    if how == 'remove': del data[at:at + n]
    if how == 'zeros': data[at:at + n] = bytes(len(data[at:at + n]))
    if how == 'header':
        for _ in range(3): data[rng.randrange(min(40, len(data)))] = rng.choice([0, 1, 127, 255])
    if how == 'repeat': data = data * 2
    if how == 'suffix': suffix = rng.choice(['jpg', 'png', 'tif', 'webp', 'bmp', 'gif', 'txt'])
    name = {'name': f'new\nline {rng.random()} ü\udc80'}.get(how,
                                                             f'{how} {kind} {rng.random():.6f}')
    return f'{name}.{suffix}', bytes(data)


def bomb(w, h):
    "A PNG that claims to have `w` times `h` pixels and holds hardly any."
    import zlib
    chunk = (lambda kind,
             data: struct.pack('>I', len(data)) + kind + data + struct.pack('>I',
             zlib.crc32(kind + data)))
    head = chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, 8, 2, 0, 0, 0))
    return (b'\x89PNG\r\n\x1a\n' + head + chunk(b'IDAT',
                                                zlib.compress(bytes(10_000))) + chunk(b'IEND',
                                                b''))


def good_files():
    "Small photos of many kinds, as bytes."
    grey, out = np.random.default_rng(0).integers(0, 256, (24, 33), dtype=np.uint8), {}
    rgb = np.dstack([grey, grey[::-1], grey[:, ::-1]])
    nan = Image.fromarray(np.full((9, 9), np.nan, np.float32))
    exif = Image.Exif()
    exif[0x0112], exif[0x010e] = 6, 'a note'
    images = dict(rgb=Image.fromarray(rgb), grey=Image.fromarray(grey),
                  bits=Image.fromarray(grey).convert('1'),
                  alpha=Image.fromarray(np.dstack([rgb, grey])),
                  sixteen=Image.fromarray(grey.astype(np.uint16) * 257),
                  cmyk=Image.fromarray(rgb).convert('CMYK'),
                  palette=Image.fromarray(rgb).quantize(9),
                  nan=nan, long=Image.new('L', (20_000, 1), 99), one=Image.new('RGB', (1, 1)))
    for name, im in images.items():
        for suffix, format in dict(jpg='JPEG', png='PNG', tif='TIFF', webp='WEBP', bmp='BMP',
                                   gif='GIF').items():
            f = io.BytesIO()
            try: im.save(f, format, **({'exif': exif} if format in ('JPEG', 'PNG') else {}))
            except (OSError, KeyError, ValueError): continue
            out[f'{suffix}-{name}'] = f.getvalue()
    f = io.BytesIO()
    images['sixteen'].save(f, 'TIFF', compression='tiff_lzw', save_all=True,
                           append_images=[images['grey'], images['sixteen']])
    return (out | {'tif-pages': f.getvalue(), 'png-bomb': bomb(60_000, 60_000),
                   'png-large': bomb(4000, 4000)})


def fuzz(folder, seed, n):
    rng, base = random.Random(seed), good_files()
    (folder/'in').mkdir()
    for name, data in (odd_bytes(rng, base) for _ in range(n)): (folder/'in'/name).write_bytes(data)
    before = {p: p.read_bytes() for p in (folder/'in').iterdir()}
    report = colorize_files(folder/'in', folder/'out', toy)
    named = [p for p in (folder/'in').iterdir() if p.suffix not in ('.txt', '.bmp', '.gif')]
    assert {p: p.read_bytes() for p in (folder/'in').iterdir()} == before
    assert all(f.isprintable() and 'Error' not in f for f in report.failed), report.failed
    results = [p for p in (folder/'out').rglob('*') if p.is_file()]
    assert len(results) == report.done and report.done + len(report.failed) >= len(named) * .9
    for p in results: Image.open(p).load()
    return report


def peak_memory(code):
    "Megabytes that a Python needs for `code`, and what it prints."
    code += (f'\nimport sys; sys.path.insert(0, {str(root/"benchmarks")!r}); '
             'from colorize import peak_memory\nprint(peak_memory())')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    return int(last), said


def test_fuzz(tmp_path):
    report = fuzz(tmp_path, 1, 100)
    assert report.done > 20 and len(report.failed) > 20


@pytest.mark.slow
@pytest.mark.parametrize('seed', range(2, 12))
def test_much_fuzz(seed, tmp_path): fuzz(tmp_path, seed, 100)


def test_bombs_are_refused(tmp_path):
    (tmp_path/'bomb.png').write_bytes(bomb(60_000, 60_000))
    with pytest.raises(ColorganError, match='megapixels'): toy(tmp_path/'bomb.png')


def test_output_is_never_the_input(cat, tmp_path):
    (tmp_path/'a').mkdir()
    cat.resize((40, 30)).save(tmp_path/'a'/'cat.png')
    (tmp_path/'link').symlink_to(tmp_path/'a')
    before = (tmp_path/'a'/'cat.png').read_bytes()
    for out in (tmp_path/'a', tmp_path/'a'/'cat.png', tmp_path/'link', tmp_path/'a'/'..'/'a'):
        with pytest.raises(ColorganError, match='written over|is a file'):
            colorize_files(tmp_path/'a', out, toy)
    (tmp_path/'b').mkdir()
    (tmp_path/'b'/'cat.png').hardlink_to(tmp_path/'a'/'cat.png')
    colorize_files(tmp_path/'a', tmp_path/'b', toy, overwrite=True)
    assert (tmp_path/'a'/'cat.png').read_bytes() == before


@pytest.mark.parametrize('out', ['mine.png', 'folder'])
def test_a_result_that_is_there_is_kept(out, cat, tmp_path):
    cat.resize((40, 30)).save(tmp_path/'cat.png')
    out = tmp_path/out
    mine = out if out.suffix else out/'cat.png'
    mine.parent.mkdir(exist_ok=True)
    mine.write_text('Dear diary')
    report = colorize_files(tmp_path/'cat.png', out, toy)
    assert (report.done, report.there, mine.read_text()) == (0, 1, 'Dear diary')
    report = colorize_files(tmp_path/'cat.png', out, toy, overwrite=True)
    assert (report.done, report.there, Image.open(mine).size) == (1, 0, (40, 30))


@pytest.mark.slow
def test_killed_at_any_moment(cat, tmp_path):
    (tmp_path/'in').mkdir()
    for i in range(40): cat.resize((300 + i, 200)).save(tmp_path/'in'/f'{i}.png')
    code = f"""import numpy as np
from colorgan.use.album import colorize_files
from colorgan.colorizer import Colorizer
print('go', flush=True)
colorize_files({str(tmp_path/'in')!r}, {str(tmp_path/'out')!r}, Colorizer(lambda L: np.concatenate([L, -L], 1)))"""
    rng, done = random.Random(0), 0
    for _ in range(30):
        if done == 40: shutil.rmtree(tmp_path/'out')
        process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(rng.random() * .4)
        process.send_signal(signal.SIGKILL)
        process.wait()
        results = ([p for p in (tmp_path/'out').rglob('*') if p.is_file()]
                   if (tmp_path/'out').exists() else [])
        for p in results: Image.open(p).load()
        assert {p.name for p in results} <= {f'{i}.png' for i in range(40)}
        done = len(results)
    assert colorize_files(tmp_path/'in', tmp_path/'out', toy).there == done % 40 or done == 40


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['L', 'RGB'])
def test_hundred_megapixels(mode, tmp_path):
    Image.linear_gradient('L').resize((12_500, 8000)).convert(mode).save(tmp_path/'large.jpg')
    megabytes, said = peak_memory(f"""import json
from colorgan.use.album import colorize_files
print(json.dumps(colorize_files({str(tmp_path/'large.jpg')!r}, {str(tmp_path/'out.jpg')!r}, size=256).failed))""")
    assert json.loads(said[0]) == [] and megabytes < 2000
    assert Image.open(tmp_path/'out.jpg').size == (12_500, 8000)


def off(a, b):
    "Levels by which all but one in a thousand values of two photos differ, at most."
    return np.percentile(np.abs(np.asarray(a).astype(int) - np.asarray(b)), 99.9)


def test_bundled_graph_is_that_of_the_bundled_weights(cat):
    folder = find_weights('light')
    graph = OnnxNet(folder/'model.onnx')
    assert graph.info['weights'] == digest(folder), (
        'make it again: colorgan export light --onnx colorgan/weights/light/model.onnx '
        '--chroma-only --half')
    assert all(type(Colorizer(device=d).net) is OnnxNet for d in (None, 'cpu', torch.device('cpu')))
    for im in (cat.resize((150, 100)), Image.open(photos['coffee']).resize((97, 131))):
        ours, torchs = Colorizer(size=96)(im), Colorizer(TorchNet(folder), size=96)(im)
        assert off(ours, torchs) <= 1 and lightness(ours).std() > 5 and np.ptp(np.asarray(ours), axis=2).mean() > 3


@pytest.mark.parametrize('weights', ['tiny', pytest.param('light', marks=pytest.mark.slow)])
def test_command_line_colorizer_and_graph_agree(weights, tmp_path):
    import onnxruntime as ort

    from colorgan.cli import main
    from colorgan.generator import create_gen
    from colorgan.use.onnx import export_onnx
    from colorgan.recipes import replace
    from colorgan.nets.weights import save_model
    if weights == 'tiny':
        torch.manual_seed(2)
        gen = create_gen(recipe := replace('pix2pix', size=32, gen_kw=dict(base=4)))
        for p in gen.net.last.parameters(): torch.nn.init.normal_(p, std=.5)
        weights = save_model(tmp_path/'tiny', gen, recipe)
    export_onnx(weights, tmp_path/'photo.onnx', size=64)
    session = ort.InferenceSession(tmp_path/'photo.onnx')
    colorizer = Colorizer(TorchNet(find_weights(weights)), size=64)
    (tmp_path/'in').mkdir()
    for name, size in ('chelsea', (200, 131)), ('coffee', (64, 64)), ('astronaut', (33, 150)):
        Image.open(photos[name]).convert('RGB').resize(size).save(tmp_path/'in'/f'{name}.png')
    Image.open(photos['rocket']).convert('L').resize((90, 70)).save(tmp_path/'in'/'grey.png')
    assert main(['colorize', str(tmp_path/'in'), '--out', str(tmp_path/'out'), '--weights',
                 str(weights), '--size', '64']) == 0
    for p in (tmp_path/'in').iterdir():
        of_graph, = session.run(None, {'photo': np.asarray(Image.open(p).convert('RGB'))})
        three = Image.open(tmp_path/'out'/p.name), colorizer(p), of_graph
        assert np.ptp(np.asarray(three[1]), axis=2).max() > 5
        assert [off(a, b) <= 1
                for a, b in ((three[0], three[1]), (three[1], three[2]),
                             (three[0], three[2]))] == [True] * 3


@pytest.mark.slow
@pytest.mark.parametrize('chroma_only', [False, True])
@pytest.mark.parametrize('name', recipes)
def test_every_recipe_becomes_both_graphs(name, chroma_only, tmp_path):
    """The exporter compares with torch by itself, on photos of five shapes; here it is seen
    that there was color to compare."""
    from test_recipes import tiny

    from colorgan.generator import create_gen
    from colorgan.use.onnx import export_onnx
    torch.manual_seed(0)
    gen = create_gen(tiny(name), pretrained=False).eval()
    if name.startswith('light'): torch.nn.init.normal_(gen.net.head.weight)
    info = export_onnx(gen, tmp_path/'net.onnx', None if chroma_only else 64, chroma_only)
    assert info['difference'] <= 1 and info['graph'] == ('chroma' if chroma_only else 'photo')
    assert np.abs(Colorizer(gen, size=64).chroma([np.tile(np.linspace(10, 90, 64,
                                                                      dtype=np.float32),
                                                                      (64, 1))])[0]).max() > .1


@pytest.mark.slow
def test_light_runtime_in_a_clean_environment(cat, tmp_path):
    """`pip install --no-deps` of the wheel, onnxruntime, numpy and Pillow: nothing else is
    there, and photos are colorized."""
    (tmp_path/'source').mkdir()
    shutil.copytree(root/'colorgan', tmp_path/'source'/'colorgan',
                    ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('pyproject.toml', 'setup.py', 'README.md', 'LICENSE'):
        shutil.copy(root/name, tmp_path/'source'/name)
    subprocess.run([sys.executable, '-m', 'build', '--wheel', '--no-isolation', '--outdir',
                    tmp_path, tmp_path/'source'], check=True, capture_output=True)
    wheel, = tmp_path.glob('*.whl')
    assert wheel.stat().st_size < 40e6
    venv.create(tmp_path/'env', with_pip=False)
    python = tmp_path/'env'/'bin'/'python'
    subprocess.run([sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet',
                    '--no-deps', '--no-index', wheel], check=True)
    site, here = next((tmp_path/'env').glob('lib/python*/site-packages')), Path(np.__file__).parent.parent
    for name in ('numpy', 'numpy.libs', 'PIL', 'pillow.libs', 'onnxruntime'):
        if (here/name).exists(): (site/name).symlink_to(here/name)
    cat.save(tmp_path/'cat.png')
    environment = {'PATH': str(tmp_path/'env'/'bin')}
    code = """from importlib.util import find_spec
from colorgan.colorizer import Colorizer
assert not [m for m in ('torch', 'fastai', 'matplotlib', 'skimage', 'safetensors') if find_spec(m)]
Colorizer(size=64)('cat.png').save('a.png')"""
    for command in ([python, '-c', code],
                    [tmp_path/'env'/'bin'/'colorgan', 'colorize', 'cat.png', '--out', 'b.png',
                     '--size', '64']):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True,
                              text=True)
        assert done.returncode == 0, done.stderr
    a, b = (np.asarray(Image.open(tmp_path/n)) for n in ('a.png', 'b.png'))
    assert np.array_equal(a, b) and off(a, Colorizer(size=64)(cat)) <= 1
    for words in (['train', 'bundled', '--out', 'run'],
                  ['colorize', 'cat.png', '--out', 'c.png', '--hint', '9,9,red']):
        done = subprocess.run([tmp_path/'env'/'bin'/'colorgan', *words], cwd=tmp_path,
                              env=environment, capture_output=True, text=True)
        assert done.returncode == 2 and 'pip install' in done.stderr and done.stderr.count('\n') == 1, done.stderr


def test_a_pipe_carries_one_photo(cat, tmp_path):
    command = [sys.executable, '-c',
               'import sys; from colorgan.cli import main; sys.exit(main())', 'colorize', '-',
               '--size', '32', '--out']
    f = io.BytesIO()
    cat.resize((45, 30)).save(f, 'JPEG')
    done = subprocess.run([*command, '-'], input=f.getvalue(), capture_output=True)
    assert done.returncode == 0
    assert done.stderr == b'colorgan: the photo is in color already, and colorized from lightness alone\n'
    out = Image.open(io.BytesIO(done.stdout))
    assert (out.format, out.size) == ('JPEG', (45, 30))
    for wrong in (b'', b'no photo'):
        done = subprocess.run([*command, str(tmp_path/'out.png')], input=wrong,
                              capture_output=True, text=False)
        assert done.returncode == 2 and done.stderr.startswith(b'colorgan: the input')
        assert not (tmp_path/'out.png').exists()


def test_a_hint_colours_its_place_and_stops_at_the_edge():
    halves = Image.new('L', (120, 80), 90)
    halves.paste(200, (60, 0, 120, 80))
    grey = Colorizer(lambda L: np.zeros_like(L).repeat(2, 1), size=80)
    lab = rgb2lab(np.asarray(grey(halves, hints=[(20, 40, '#b04040')])))
    assert np.abs(lab[40, 20, 1:] - chroma_of('#b04040')).max() < 2
    assert np.linalg.norm(lab[:, 5:50, 1:], axis=2).mean() > 20 > 4 > np.linalg.norm(lab[:, 70:, 1:], axis=2).mean()


def test_subsampling_is_that_of_the_file(cat, tmp_path):
    from PIL import JpegImagePlugin
    for i, s in enumerate(('4:4:4', '4:2:2', '4:2:0')):
        colorize_files(photos['chelsea'], tmp_path/'out.jpg', toy, subsampling=s, overwrite=True)
        assert JpegImagePlugin.get_sampling(Image.open(tmp_path/'out.jpg')) == i


def test_a_suffix_that_names_end_in_by_chance(cat, tmp_path):
    "apple.jpg is no result because its name ends in the suffix e; pea-e.jpg would be one if there were a pea-.jpg."
    for name in 'apple.jpg', 'pear.jpg', 'pearl-e.jpg': cat.resize((30, 20)).save(tmp_path/name)
    report = colorize_files(tmp_path, tmp_path, toy, suffix='e')
    assert (report.done, report.left) == (3, [])
    report = colorize_files(tmp_path, tmp_path, toy, suffix='e')
    assert (report.done, report.there) == (0, 3)
    assert sorted(Path(n).name for n in report.left) == ['applee.jpg', 'peare.jpg', 'pearl-ee.jpg']


def test_what_is_no_photo_is_named(cat, tmp_path):
    (tmp_path/'in'/'below').mkdir(parents=True)
    cat.resize((30, 20)).save(tmp_path/'in'/'cat.png')
    for name in 'a.heic', 'below/b.raw', '.DS_Store': (tmp_path/'in'/name).write_text('')
    with zipfile.ZipFile(tmp_path/'more.zip', 'w') as z:
        z.write(tmp_path/'in'/'cat.png', 'zipped.png')
        z.writestr('read me.txt', '')
    report = colorize_files([tmp_path/'in', tmp_path/'more.zip'], tmp_path/'in'/'out', toy)
    assert report.done == 2 and sorted(Path(n).name for n in report.left) == ['a.heic', 'b.raw', 'read me.txt']
    again = colorize_files(tmp_path/'in', tmp_path/'in'/'out', toy)
    assert sorted(Path(n).name for n in again.left) == ['a.heic', 'b.raw']


@pytest.mark.parametrize('error', [ZeroDivisionError('0/0'), RuntimeError('out of memory'), AssertionError()], ids=repr)
def test_any_error_is_that_of_one_photo(error, cat, tmp_path):
    (tmp_path/'in').mkdir()
    for i in range(9): cat.resize((30, 20 + i)).save(tmp_path/'in'/f'{i}.png')
    def net(L):
        if L.shape[2] > 32: raise error # one of them is higher than wide
        return np.concatenate([L, -L], 1)
    cat.resize((30, 60)).save(tmp_path/'in'/'tall.png')
    report = colorize_files(tmp_path/'in', tmp_path/'out', Colorizer(net, 32))
    assert report.done == 9 and len(report.failed) == 1 and 'tall.png could not be colorized' in report.failed[0]


def test_a_resolution_that_is_none_does_not_end_the_album(cat, tmp_path):
    for i in range(3): cat.resize((30, 20)).save(tmp_path/f'{i}.tif', dpi=(72, 72))
    odd = tmp_path/'1.tif'
    odd.write_bytes(odd.read_bytes().replace(struct.pack('<II', 72, 1), bytes(8)))
    report = colorize_files(tmp_path, tmp_path/'out', toy)
    assert (report.done, report.failed) == (3, [])


def test_a_generator_that_is_being_trained():
    "In many threads it predicts what it does in evaluation mode, and stays as it is: mode, and batch norms."
    from concurrent.futures import ThreadPoolExecutor
    from colorgan.colorizer import TorchNet
    from colorgan.generator import create_gen
    from colorgan.recipes import replace
    for recipe in replace('pix2pix', size=32, gen_kw=dict(base=4)), replace('sagan-unet', size=32):
        torch.manual_seed(0)
        gen = create_gen(recipe, pretrained=False)
        with torch.no_grad(): gen.train()(torch.rand(4, 1, 64, 64))
        before = {k: t.clone() for k, t in gen.state_dict().items()}
        Ls = [np.random.default_rng(i).random((1, 1, 64, 64), np.float32) * 100 for i in range(12)]
        right = [TorchNet(gen.eval())(L) for L in Ls]
        gen.train()
        def predict(i, gen=gen, Ls=Ls): return TorchNet(gen)(Ls[i % 12]), all(m.training for m in gen.modules())
        with ThreadPoolExecutor(6) as pool: results = list(pool.map(predict, range(36)))
        assert all(np.array_equal(ab, right[i % 12]) and training for i, (ab, training) in enumerate(results))
        assert all(torch.equal(t, before[k]) for k, t in gen.state_dict().items())


@pytest.mark.parametrize('threads, callers', [(0, 1), (1, 2)])
def test_one_caller_at_a_time_where_a_session_has_threads_of_its_own(threads, callers):
    "Two at once have hung. Without threads of its own they need not wait: both are inside before either leaves."
    from concurrent.futures import ThreadPoolExecutor
    net, both, inside = OnnxNet(find_weights('light')/'model.onnx', threads), threading.Barrier(callers), []
    class Session:
        def run(self, names, feed):
            inside.append(1)
            most = len(inside)
            both.wait(60)
            time.sleep(.02)
            inside.pop()
            return [most]
    net.session = Session()
    with ThreadPoolExecutor(2) as pool: most = list(pool.map(net, [np.zeros((1, 1, 32, 32))] * 8))
    assert max(most) == callers


@pytest.mark.parametrize('command', [[sys.executable, 'colorize.py'], ['node', 'colorize.mjs']],
                         ids=['python', 'javascript'])
def test_the_examples_in_other_languages(cat, tmp_path, command, capsys):
    examples = Path(__file__).parent.parent/'examples'
    assert main(['export', 'light', '--onnx', str(tmp_path/'photo.onnx')]) == 0
    assert (tmp_path/'photo.md').read_text(encoding='utf-8').startswith('---')
    cat.save(tmp_path/'cat.png')
    for p in examples.iterdir(): shutil.copy(p, tmp_path)
    packages = os.environ.get('NODE_MODULES')
    if command[0] == 'node':
        if not packages: pytest.skip('NODE_MODULES names no folder with onnxruntime-node and sharp')
        (tmp_path/'node_modules').symlink_to(packages)
    done = subprocess.run([*command, 'photo.onnx', 'cat.png', 'out.png'], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    ours = np.asarray(colorize(cat)).astype(int)
    assert np.abs(np.asarray(Image.open(tmp_path/'out.png').convert('RGB')) - ours).max() <= 2
