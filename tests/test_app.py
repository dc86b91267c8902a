"""The app: its widgets used by Python, and used by hand in a browser."""
import base64
import io
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from browser import page
from PIL import Image

import colorgan.use.app as module
from colorgan.use.app import app
from colorgan.cli import main
from colorgan.colorizer import colorize
from colorgan.photos.files import encode, read_photo
from colorgan.photos.sources import bundled_photos
from colorgan.nets.weights import bundled_weights

photos = {p.stem: p for p in bundled_photos()}
light = bundled_weights()['light']


def jpeg(side=160, mode='L'):
    image = Image.open(photos['chelsea']).convert(mode).resize((side, side * 2 // 3))
    return encode(image, 'JPEG')


seven = lambda name, content: {name: {'metadata': {'name': name, 'type': '',
                                                   'size': len(content), 'lastModified': 0},
                                                   'content': content}}
eight = lambda name, content: ({'name': name, 'type': '', 'size': len(content),
                                'content': memoryview(content)},)
shapes = pytest.mark.parametrize('shape', [seven, eight], ids=['ipywidgets 7', 'ipywidgets 8'])


@pytest.fixture
def a():
    it = app(runs=None, samples=[photos['chelsea'], photos['coffee']])
    it.ui.size.value = 96
    return it


def shown(a):
    "The two pictures on the screen."
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', a.ui.picture.value)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(x)))).astype(int) for x in found]


def saved(a):
    "The file that the link on the screen holds: its name and its bytes."
    a.ui.download.click()
    return re.search(r'download="([^"]+)"',
                     a.ui.link.value)[1], base64.b64decode(re.search(r'base64,([^"]+)"',
                                                                     a.ui.link.value)[1])


def chroma(x): return (x.max(-1) - x.min(-1)).mean()


def test_a_sample_is_there_at_once_and_another_can_be_picked(a):
    before, after = shown(a)
    assert before.shape == after.shape == (300, 451, 3)
    assert chroma(before) < 2 < chroma(after)
    a.ui.samples[1].click()
    assert a.ui.status.value.startswith('coffee.png, 600 × 400') and shown(a)[0].shape == (400, 600, 3)


def test_strength(a):
    levels = []
    for a.ui.strength.value in (0, 1, 2): levels.append(chroma(shown(a)[1]))
    assert levels[0] < 2 and levels[0] < levels[1] < levels[2]


def test_size_and_before(a):
    grey, small = shown(a)
    a.ui.size.value = 192
    assert not np.array_equal(small, shown(a)[1])
    a.ui.before.value = 'as it was'
    assert np.abs(shown(a)[0] - np.asarray(Image.open(photos['chelsea']))).mean() < 4 < chroma(shown(a)[0] - grey)


@shapes
def test_what_is_saved_is_what_colorize_makes(a, shape):
    content = jpeg()
    a.upload(shape('old.JPG', content))
    a.ui.strength.value = 1.5
    assert saved(a) == ('old-color.JPG', encode(colorize(content, 'light', 96, 1.5), 'JPEG'))
    a.ui.samples[0].click()
    assert a.ui.link.value == ''
    a.ui.strength.value = 1
    name, content = saved(a)
    assert name == 'chelsea-color.png'
    assert np.array_equal(Image.open(io.BytesIO(content)), colorize(photos['chelsea'], 'light', 96))


def test_the_widget_itself_takes_a_file(a):
    "The trait that a front end sets, in the shape of the installed version."
    content = jpeg()
    about, data = dict(name='old.jpg', type='image/jpeg', size=len(content)), memoryview(content)
    if isinstance(a.ui.upload.value, dict):
        a.ui.upload.set_state(dict(metadata=[about | dict(lastModified=0)], data=[data],
                                   _counter=1))
    else: a.ui.upload.set_state(dict(value=[about | dict(last_modified=0, content=data)]))
    assert a.ui.status.value.startswith('old.jpg, 160 × 106')
    assert not a.ui.upload.value, 'so that the same file can be uploaded again'


@shapes
@pytest.mark.parametrize(('name', 'content', 'said'), [
    ('diary.txt', b'Dear diary', 'diary.txt is not a photo'), ('half.jpg', jpeg()[:2000],
                                                               'half.jpg cannot be read'),
    ('<b>.jpg', b'', '&lt;b&gt;.jpg is not a photo')], ids=['text', 'half', 'nothing'])
def test_what_is_no_photo_is_one_sentence(a, shape, name, content, said):
    picture = a.ui.picture.value
    a.upload(shape(name, content))
    assert said in a.ui.status.value and 'problem' in a.ui.status.value and '\n' not in a.ui.status.value
    assert a.ui.picture.value == picture
    a.ui.samples[1].click()
    assert 'problem' not in a.ui.status.value


def test_a_clicked_colour_comes_and_goes(a):
    plain = shown(a)[1]
    a.ui.placing.value = True
    a.ui.colour.value = '#2040d0'
    a.ui.place.value = '.5 .5 1'
    assert 'left:50.00%;top:50.00%;background:#2040d0' in a.ui.picture.value
    bluer = (shown(a)[1] - plain)[..., 2] - (shown(a)[1] - plain)[..., 0]
    assert bluer[145:155, 220:230].mean() > 20 > bluer[:5, :5].mean() + 15
    assert saved(a)[1] == encode(colorize(photos['chelsea'], 'light', 96,
                                          hints=[(225, 149.5, '#2040d0')]), 'PNG')
    assert not a.ui.undo.disabled
    a.ui.undo.click()
    assert a.ui.undo.disabled and '<b style' not in a.ui.picture.value
    assert np.array_equal(shown(a)[1], plain)


def test_weights_of_a_run_can_be_chosen(tmp_path):
    for name in ('run/model', 'damaged'):
        (tmp_path/name).mkdir(parents=True)
        for f in light.iterdir(): (tmp_path/name/f.name).write_bytes(f.read_bytes())
    (tmp_path/'damaged'/'model.onnx').unlink(missing_ok=True)
    (tmp_path/'damaged'/'model.safetensors').write_bytes(b'nothing')
    a = app(tmp_path, [photos['chelsea']])
    assert [name for name, _ in a.ui.weights.options] == [*bundled_weights(), 'damaged', 'run']
    picture = a.ui.picture.value
    a.ui.weights.value = tmp_path/'damaged'
    assert 'problem' in a.ui.status.value and 'damaged' in a.ui.status.value
    a.ui.weights.value = tmp_path/'run'/'model'
    assert 'problem' not in a.ui.status.value and a.ui.picture.value == picture


def test_new_weights_of_a_run_are_loaded(tmp_path):
    for f in light.iterdir(): (tmp_path/f.name).write_bytes(f.read_bytes())
    before = module._network(tmp_path, None)
    assert module._network(tmp_path, None) is before
    os.utime(tmp_path/'model.safetensors', ns=(0, 0))
    assert module._network(tmp_path, None) is not before


def test_without_widgets_there_is_a_picture(a):
    bundle = a._repr_mimebundle_()
    assert bundle['application/vnd.jupyter.widget-view+json']['model_id'] == a.root.model_id
    assert Image.open(io.BytesIO(bundle['image/jpeg'])).size == (2 * 451 + 8, 300)


def test_port_in_use(capsys):
    with socket.create_server(('127.0.0.1', 0)) as s:
        assert main(['app', '--port', str(s.getsockname()[1])]) == 2
    said = capsys.readouterr().err
    assert said.count('\n') == 1 and 'give another one with --port' in said


def test_without_voila(capsys, monkeypatch):
    monkeypatch.setattr(module, 'find_spec', lambda name: None)
    assert main(['app', '--port', '0']) == 2
    assert capsys.readouterr().err == "colorgan: the app in a browser needs voila: pip install 'colorgan[app]'\n"


@pytest.mark.parametrize('words, said', [(('--runs', 'nowhere'), 'there is no folder nowhere'),
                                         (('--device', 'nonsense'), "there is no device 'nonsense'")],
                         ids=['runs', 'device'])
def test_what_the_app_needs_is_looked_for_first(words, said, capsys, monkeypatch):
    def start(*args): raise AssertionError('no server is started')
    monkeypatch.setattr(module, '_voila', start)
    assert main(['app', '--port', '0', *words]) == 2
    assert capsys.readouterr().err.startswith(f'colorgan: {said}')


@contextmanager
def served(folder):
    "`colorgan app` as somebody starts it in a terminal, and ends it with Ctrl-C; its address."
    code = ('import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); '
            'from colorgan.cli import main; sys.exit(main())')
    process = subprocess.Popen([sys.executable, '-c', code, 'app', '--port', '0'], cwd=folder,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert 'Ctrl-C ends it' in line, line + process.stderr.read()
        yield re.search(r'http://127\.0\.0\.1:\d+/\?token=[\w-]+', line)[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 0
        said = process.stderr.read()
        assert 'Traceback' not in said, said
    finally:
        if process.poll() is None: process.kill()


@contextmanager
def visit(url, **kw):
    "The page at `url` with the app on it; nothing but that address may answer."
    with page(**kw) as tab:
        tab.answers = set()
        tab.on('response',
               lambda r: tab.answers.add(urlsplit(r.url).netloc) if r.url.startswith('http')
               else None)
        tab.goto(url)
        tab.locator('.colorgan-app .pair').wait_for()
        yield tab
        assert tab.answers == {urlsplit(url).netloc}
        assert [e for e in tab.errors if 'Content Security Policy' not in e] == []


def keep(tab, name, full=True):
    "A picture of the page in the folder that COLORGAN_SHOTS names, if it does."
    tab.wait_for_timeout(500)
    if folder := os.environ.get('COLORGAN_SHOTS'):
        tab.screenshot(path=Path(folder)/f'{name}.png', full_page=full)


def seen(tab, left, right):
    """How colorful a part of the picture is, from `left` to `right` as shares of its width,
    far from the handle."""
    tab.wait_for_timeout(500)
    x = np.asarray(Image.open(io.BytesIO(tab.locator('.pair').screenshot())).convert('RGB')).astype(int)
    return chroma(x[:x.shape[0] // 3, round(left * x.shape[1]):round(right * x.shape[1])])


def said(tab, text): tab.locator('.colorgan-status', has_text=text).wait_for()


def choose(tab, path):
    with tab.expect_file_chooser() as chooser: tab.locator('.colorgan-upload').click()
    chooser.value.set_files(path)


def drag(tab, start, end):
    tab.mouse.move(*start)
    tab.mouse.down()
    tab.mouse.move(*end, steps=8)
    tab.mouse.up()


def answer(url, **headers):
    "The status, the headers and the text of an answer"
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen
    try:
        with urlopen(Request(url, headers={k.replace('_', '-'): v for k, v in headers.items()}), timeout=300) as r:
            return r.status, r.headers, r.read().decode()
    except HTTPError as e: return e.code, e.headers, ''


def kernels(folder):
    "How many processes run a kernel that the app in `folder` started"
    found = 0
    for d in Path('/proc').glob('[0-9]*'):
        try:
            found += (b'ipykernel_launcher' in (d/'cmdline').read_bytes()
                      and f'COLORGAN_TEST={folder}'.encode() in (d/'environ').read_bytes())
        except OSError: continue
    return found


@pytest.mark.slow
def test_who_is_let_in(tmp_path, monkeypatch):
    """Without the token, from another site, or in its frame: nobody. With it: eight at once of
    twenty, in Chromium; the others are told to come later, and the eight are served."""
    monkeypatch.setenv('COLORGAN_TEST', str(tmp_path))
    with served(tmp_path) as url, page() as first:
        assert 'colorgan-app' not in answer(url.partition('?')[0])[2]
        assert answer(url, Sec_Fetch_Site='cross-site')[0] == answer(url, Host='evil.example')[0] == 403
        assert kernels(tmp_path) <= 1 # which waits for the first visitor
        tabs = [first, *(first.context.new_page() for _ in range(19))]
        # Without waiting for each other: windows that open themselves
        tokens = [tab.goto(f'{url}&n={i}', wait_until='commit', timeout=300_000) for i, tab in enumerate(tabs)]
        shown = [i for i, r in enumerate(tokens) if r.status == 200]
        assert 8 <= len(shown) <= 9 and {r.status for r in tokens} == {200, 503}
        assert "frame-ancestors 'self'" in tokens[0].headers['content-security-policy']
        for i in shown: tabs[i].locator('.colorgan-app .pair').wait_for(timeout=300_000)
        assert kernels(tmp_path) <= 9


@pytest.mark.slow
def test_in_a_browser(tmp_path):
    Image.open(photos['coffee']).convert('L').save(tmp_path/'old.jpg', quality=90)
    (tmp_path/'diary.txt').write_text('Dear diary')
    (tmp_path/'half.jpg').write_bytes(jpeg()[:2000])
    with served(tmp_path) as url, visit(url) as tab:
        refused = subprocess.run([sys.executable, '-c', f'''import urllib.request, urllib.error
try: urllib.request.urlopen(urllib.request.Request({url!r}, headers=dict(Host='evil.example')))
except urllib.error.HTTPError as e: print(e.code)'''], capture_output=True, text=True)
        assert refused.stdout == '403\n'
        keep(tab, 'app')

        tab.get_by_title('chelsea').click()
        said(tab, 'chelsea.png, 451 × 300')
        box = tab.locator('.pair').bounding_box()
        at = lambda x, y=.5: (box['x'] + x * box['width'], box['y'] + y * box['height'])
        assert seen(tab, .1, .45) < 3 < seen(tab, .55, .9)
        drag(tab, at(.5), at(.05))
        assert seen(tab, .1, .45) > 3
        drag(tab, at(.05), at(.95))
        assert seen(tab, .1, .9) < 3

        choose(tab, tmp_path/'old.jpg')
        said(tab, 'old.jpg, 600 × 400')
        assert seen(tab, .1, .9) < 3
        handle = tab.locator('.colorgan-side .noUi-handle, .colorgan-side .ui-slider-handle').bounding_box()
        middle = handle['x'] + handle['width'] / 2, handle['y'] + handle['height'] / 2
        drag(tab, middle, (middle[0] + 60, middle[1]))
        tab.locator('.widget-readout', has_text=re.compile('1[1-9]')).wait_for()
        strength = int(tab.locator('.widget-readout').inner_text().strip('%')) / 100
        with tab.expect_download() as download: tab.get_by_role('button', name='Download').click()
        assert download.value.suggested_filename == 'old-color.jpg'
        assert Path(download.value.path()).read_bytes() == encode(colorize(tmp_path/'old.jpg',
                                                                           'light',
                                                                           saturation=strength), 'JPEG')
        keep(tab, 'app-saved')

        for name, text in {'diary.txt': 'diary.txt is not a photo',
                           'half.jpg': 'half.jpg cannot be read'}.items():
            choose(tab, tmp_path/name)
            said(tab, text)
        keep(tab, 'app-problem')

        tab.get_by_title('chelsea').click()
        said(tab, 'chelsea.png')
        tab.locator('input[type=color]').fill('#2040d0')
        tab.get_by_role('button', name='Place a color').click()
        said(tab, 'Click where you want the color')
        tab.mouse.click(*at(.25, .3))
        dot = tab.locator('.pair b')
        dot.wait_for()
        place = dot.bounding_box()
        assert abs(place['x']
                   + place['width'] / 2 - at(.25)[0]) < 3 and abs(place['y'] + place['height'] / 2 - at(0, .3)[1]) < 3
        assert dot.evaluate('e => getComputedStyle(e).backgroundColor') == 'rgb(32, 64, 208)'
        keep(tab, 'app-hint')
        tab.get_by_role('button', name='Undo').click()
        dot.wait_for(state='detached')


@pytest.mark.slow
def test_a_large_photo_on_a_phone(tmp_path):
    """Twelve megapixels and more than ten megabytes, which is more than Jupyter's servers let
    through by themselves."""
    noise = np.random.default_rng(0).integers(0, 130, (3000, 4000), dtype=np.uint8)
    enlarged = read_photo(photos['coffee']).image.convert('L').resize((4000, 3000))
    Image.fromarray(noise + np.asarray(enlarged) // 2).save(tmp_path/'large.jpg', quality=98)
    assert (tmp_path/'large.jpg').stat().st_size > 10e6
    with served(tmp_path) as url, visit(url, width=390, height=844, phone=True) as tab:
        keep(tab, 'app-phone')
        assert tab.evaluate('document.documentElement.scrollWidth') <= 390
        tab.get_by_title('coffee').tap()
        said(tab, 'coffee.png')
        choose(tab, tmp_path/'large.jpg')
        said(tab, 'large.jpg, 4000 × 3000')
        with tab.expect_download() as download: tab.get_by_role('button', name='Download').tap()
        assert Image.open(download.value.path()).size == (4000, 3000)


def test_how_sure_is_shown_on_the_left():
    a = app(None, [photos['astronaut']])
    grey = a.ui.picture.value
    a.ui.before.value = 'how sure'
    assert 'white is sure' in a.ui.status.value and a.ui.picture.value != grey
    sure = np.asarray(a.painting.sure(a.colorizer()))
    assert sure.std() > 10 and np.array_equal(sure[..., 0], sure[..., 1])
    a.ui.before.value = 'in grey'
    assert a.ui.picture.value == grey


@pytest.mark.slow
def test_a_clip_in_a_browser(tmp_path):
    "It plays there, in color, and comes down as a film."
    import av
    from test_film import make
    make(tmp_path/'old.mp4', 50, (320, 240), sound=True)
    with served(tmp_path) as url, visit(url) as tab:
        choose(tab, tmp_path/'old.mp4')
        said(tab, '50 frames')
        video = tab.locator('.pair video')
        video.evaluate('v => v.readyState > 1 || new Promise(done => v.onloadeddata = done)')
        assert video.evaluate('v => [v.videoWidth, v.videoHeight]') == [320, 240]
        assert abs(video.evaluate('v => v.duration') - 2) < .1
        before = video.evaluate('v => v.currentTime')
        tab.wait_for_timeout(400)
        assert video.evaluate('v => v.currentTime') != before and seen(tab, .1, .9) > 3
        keep(tab, 'clip')
        with tab.expect_download() as coming: tab.get_by_role('button', name='Download').click()
        coming.value.save_as(tmp_path/'new.mp4')
        assert sum(1 for _ in av.open(str(tmp_path/'new.mp4')).decode(video=0)) == 50
