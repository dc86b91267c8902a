"""The page in a browser: real clicks, real photos up and down, and files that are not photos."""
import functools
import http.server
import json
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from browser import page as window
from PIL import Image

from colorgan.cli import main
from colorgan.colorizer import colorize
from colorgan.colour.hints import chroma_of, spread
from colorgan.photos.sources import bundled_photos

results = Path(__file__).resolve().parent.parent/'nbs'/'results'/'page.json'
pytestmark = pytest.mark.slow


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The page, made by the command line."
    out = tmp_path_factory.mktemp('site')
    assert main(['page', '--out', str(out)]) == 0
    return out


@contextmanager
def served(handler):
    "Whoever answers on a port of this machine: its address"
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()


@pytest.fixture(scope='module')
def address(site):
    with served(functools.partial(Quiet, directory=site)) as url: yield url


def photo(folder, name, scale=1, number=0):
    "A bundled photo, as a file of its own."
    im = Image.open(bundled_photos()[number]).convert('RGB')
    im.resize([round(s * scale) for s in im.size]).save(folder/name)
    return folder/name


def choose(page, *files):
    "Choose files by the button and wait until each is painted or refused; the newest cards come first."
    cards = page.locator('article:not([data-state=busy])')
    there = cards.count()
    page.set_input_files('#choose', files)
    cards.nth(there + len(files) - 1).wait_for()
    return page.locator('article')


def download(page, card, to):
    with page.expect_download() as wanted: card.get_by_role('button', name='Download').click()
    wanted.value.save_as(to)
    return wanted.value.suggested_filename


def seconds(card):
    return float(card.locator('.facts').inner_text().split('colorized in ')[1].split()[0])


def hint_seconds(page, card):
    "From a click on the photo to the picture with the color that it places."
    card.get_by_role('button', name='Place it').click()
    box, begun = card.locator('.aim').bounding_box(), perf_counter()
    repainted(card, lambda: page.mouse.click(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2))
    return round(perf_counter() - begun, 1)


def repainted(card, do):
    "Do something that changes the picture, and wait for it."
    old = card.locator('.after').get_attribute('src')
    do()
    card.locator(f'.after:not([src="{old}"])').wait_for()


@pytest.mark.parametrize(('name', 'scale', 'number'),
                         [('colour.png', 1, 0), ('tall and thin.png', .3, 1),
                          ('many pixels.png', 2.5, 2)])
def test_same_as_the_command_line(address, tmp_path, name, scale, number):
    src = photo(tmp_path, name, scale, number)
    with window() as page:
        page.goto(address)
        saved = download(page, choose(page, src).first, tmp_path/'by-page.png')
        assert saved == f'{src.stem}-color.png'
        assert page.errors == []
    assert main(['colorize', str(src), '--out', str(tmp_path/'by-command.png')]) == 0
    ours, theirs = (np.asarray(Image.open(tmp_path/f).convert('RGB')).astype(int)
                    for f in ('by-page.png', 'by-command.png'))
    assert np.percentile(np.abs(ours - theirs), 99.9) <= 1


def test_twelve_megapixels(address, tmp_path):
    "A large photo is painted and saved at its own size; what it takes is written down, on WebAssembly."
    src = tmp_path/'large.jpg'
    Image.open(bundled_photos()[2]).resize((4000, 3000)).save(src, quality=90)
    with window() as page:
        page.goto(address + '?gpu=no')
        first, *others = [seconds(choose(page, photo(tmp_path, f'{i}.jpg')).first) for i in range(4)]
        figures = dict(first_photo_s=first, photo_512_s=sorted(others)[1],
                       hint_512_s=hint_seconds(page, page.locator('article').first),
                       megabytes=float(page.locator('#megabytes').inner_text()))
        card = choose(page, src).first
        figures['photo_12mp_s'] = seconds(card)
        assert download(page, card, tmp_path/'large-color.jpg') == 'large-color.jpg'
        assert page.errors == []
    assert Image.open(tmp_path/'large-color.jpg').size == (4000, 3000)
    results.write_text(json.dumps(figures, indent=1) + '\n')


def test_files_that_are_no_photos(address, tmp_path):
    (tmp_path/'notes.jpg').write_text('no photo')
    (tmp_path/'empty.png').touch()
    with window() as page:
        page.goto(address)
        cards = choose(page, tmp_path/'notes.jpg', tmp_path/'empty.png',
                       photo(tmp_path, 'good.jpg'))
        assert cards.nth(0).get_attribute('data-state') == 'done'
        for i, name in enumerate(('empty.png', 'notes.jpg'), 1):
            assert f'{name} is not a photo that this browser can read' in cards.nth(i).inner_text()
        cards.nth(1).get_by_role('button', name='Remove').click()
        assert cards.count() == 2
        assert page.errors == []


def test_by_mouse(address, tmp_path):
    with window() as page:
        page.goto(address)
        page.get_by_role('button', name='Try one of ours').click()
        card = page.locator('article[data-state=done]')
        card.wait_for()
        box = card.locator('.cut').bounding_box()
        page.mouse.move(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
        page.mouse.down()
        page.mouse.move(box['x'] + box['width'] * .2, box['y'] + box['height'] / 2, steps=5)
        page.mouse.up()
        assert int(card.locator('.cut').input_value()) < 30
        before = card.locator('.after').get_attribute('src')
        dial = card.locator('.strength').bounding_box()
        page.mouse.click(dial['x'] + 2, dial['y'] + dial['height'] / 2)
        page.locator(f'article .after:not([src="{before}"])').wait_for()
        assert card.locator('output').inner_text() == '0 %'
        download(page, card, tmp_path/'grey.jpg')
        assert page.errors == []
    rgb = np.asarray(Image.open(tmp_path/'grey.jpg').convert('RGB')).astype(int)
    assert np.ptp(rgb, axis=2).max() <= 6


def test_by_keyboard_on_a_phone(address):
    with window(390, 844, phone=True) as page:
        page.goto(address)
        names = []
        for _ in range(7):
            page.keyboard.press('Tab')
            names.append(page.evaluate('document.activeElement.id || '
                                       'document.activeElement.className || '
                                       'document.activeElement.tagName'))
        assert names[1:5] == ['choose', 'folder', 'sample', 'cut']
        page.locator('#sample').press('Enter')
        card = page.locator('article[data-state=done]')
        card.wait_for()
        card.locator('.cut').press('ArrowLeft')
        assert card.locator('.cut').input_value() == '49'
        assert page.evaluate('document.documentElement.scrollWidth') <= 390
        assert all(img.get_attribute('alt') for img in page.locator('img').all())
        assert 'is in color' in page.locator('#status').inner_text()
        assert page.errors == []


def test_dropped(address, tmp_path):
    with window() as page:
        page.goto(address)
        page.evaluate("""async () => {
            const data = new DataTransfer();
            data.items.add(new File([await (await fetch('sample.jpg')).blob()], 'dropped.jpg', {type: 'image/jpeg'}));
            document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
        }""")
        page.locator('article[data-state=done]').wait_for()
        assert page.locator('article h2').inner_text() == 'dropped.jpg'


def test_same_colours_as_python(address, tmp_path):
    "A JPEG, too, comes out as Python makes it of the same pixels."
    src = photo(tmp_path, 'photo.jpg', .5, 3)
    with window() as page:
        page.goto(address)
        download(page, choose(page, src).first, tmp_path/'out.jpg')
    ours, theirs = np.asarray(Image.open(tmp_path/'out.jpg')).astype(int), np.asarray(colorize(src)).astype(int)
    assert np.abs(ours - theirs).mean() < 3


def test_without_a_network(address, tmp_path):
    "After one photo it is kept in the browser: without a network it opens again and colorizes; it asked nobody else."
    src, asked = photo(tmp_path, 'a.png', .3), []
    with window() as page:
        page.on('request', lambda r: asked.append(r.url))
        page.goto(address)
        choose(page, src)
        page.locator('#offline').wait_for()
        page.context.set_offline(True)
        page.reload()
        assert page.locator('h1').inner_text() == 'Color for black-and-white photos'
        assert choose(page, src).first.get_attribute('data-state') == 'done'
        assert page.errors == []
    assert [u for u in asked if not u.startswith((address, 'blob:', 'data:'))] == []


def test_a_folder(address, tmp_path):
    folder = tmp_path/'album'
    folder.mkdir()
    for name in 'a.png', 'b.png': photo(folder, name, .3)
    (folder/'notes.txt').write_text('hello')
    with window() as page:
        page.goto(address)
        page.set_input_files('#folder', folder)
        page.locator('article[data-state=done]').nth(1).wait_for()
        assert page.locator('article').count() == 2 and page.errors == []


def test_it_can_be_installed(address):
    import urllib.request
    read = lambda name: urllib.request.urlopen(address + name).read()
    manifest, worker = json.loads(read('manifest.json')), read('sw.js').decode()
    assert manifest['display'] == 'standalone' and {i['sizes'] for i in manifest['icons']} == {'192x192', '512x512'}
    assert all(read(i['src'])[:4] == b'\x89PNG' for i in manifest['icons'])
    kept = worker.split("SHELL = '")[1].split("'")[0].split()
    assert all(read(n) is not None for n in kept)
    assert {'./', 'page.js', 'colour.js', 'hints.js', 'worker.js', 'ort.js', 'ort-gpu.js',
            'network.json'} <= set(kept)
    assert json.loads(read('network.json'))['version'] in worker and 'VERSION' not in worker


@contextmanager
def elsewhere():
    "Another site, which would answer anybody: its address, and what it was asked"
    asked = []
    class Open(Quiet):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200)
            self.send_header('Access-Control-Allow-Origin', '*')
            self.end_headers()
    with served(Open) as url: yield url, asked


def test_its_policy_holds(address):
    "Neither the page nor its worker can ask another site, and no style or script that somebody slips in is used."
    ask = "async url => { try { await fetch(url); return 'answered'; } catch { return 'refused'; } }"
    with elsewhere() as (other, asked), window() as page:
        page.goto(address)
        page.get_by_role('button', name='Try one of ours').click()
        page.locator('article[data-state=done]').wait_for()
        assert page.errors == []
        worker = next(w for w in page.workers if not w.url.endswith('sw.js'))
        assert page.evaluate(ask, other + 'page') == worker.evaluate(ask, other + 'worker') == 'refused'
        assert asked == []
        page.evaluate("""() => {
            document.body.insertAdjacentHTML('beforeend',
                '<p id="slipped" style="color: rgb(1, 2, 3)">x</p>');
            const s = document.createElement('script');
            s.textContent = 'window.slipped = 1';
            document.body.append(s); }""")
        slipped = page.evaluate("[getComputedStyle(slipped).color === 'rgb(1, 2, 3)', "
                                "window.slipped === 1]")
        assert slipped == [False, False]
        assert page.locator('[style*="--shape"]').count() == 1, 'what the page itself sets is set'


@pytest.mark.parametrize(('rows', 'columns'), [(40, 56), (33, 20), (1, 5), (1, 1)])
def test_hints_spread_as_in_python(address, rows, columns):
    """The arithmetic alone, on lightness with edges and grain, and with a border on the prediction
    as the padding leaves it."""
    rng, border = np.random.default_rng(3), 4
    L = (rng.uniform(30, 40, (rows, columns)) + 40 * (np.arange(columns) > columns // 2)).astype(np.float32)
    wide = rng.normal(0, 20, (2, rows + border, columns + border)).astype(np.float32)
    size = width, height = columns * 7, rows * 7
    hints = [(3, 3, '#c03030'), (width - 1, height // 2, '#2040c0'), (width // 2, height - 1, '#ffffff')]
    with window() as page:
        page.goto(address)
        ours = page.evaluate("""async ({L, ab, rows, columns, stride, width, height, hints}) => {
            const {chromaOf, spread} = await import('./hints.js');
            const seen = {L: Float32Array.from(L), ab: Float32Array.from(ab), rows, columns, stride, width, height};
            const once = spread(seen, 1.5, hints), again = spread(seen, 1.5, hints);
            return {ab: [...once.ab], same: once.ab.every((v, i) => v === again.ab[i]),
                    none: [...spread(seen, 1, []).ab],
                    colours: hints.map(h => chromaOf(h.colour))};
        }""", dict(L=L.ravel().tolist(), ab=wide.ravel().tolist(), rows=rows, columns=columns,
                   stride=columns + border, width=width,
                   height=height, hints=[dict(x=x, y=y, colour=c) for x, y, c in hints]))
    ab = np.ascontiguousarray(wide[:, :rows, :columns])
    shaped = lambda values: np.reshape(values, ab.shape)
    assert np.allclose(ours['colours'], [chroma_of(c) for *_, c in hints], atol=1e-3)
    assert np.allclose(shaped(ours['ab']), spread(1.5 * ab, L, hints, size), atol=.02)
    assert np.array_equal(shaped(ours['none']).astype(np.float32), ab) and ours['same']


def test_a_hint_by_mouse(address, tmp_path):
    "A click gives a region a color, as `--hint` does; another color and no hint are applied as well."
    src = photo(tmp_path, 'a.png', .3)
    with window() as page:
        page.goto(address)
        card = choose(page, src).first
        plain = download(page, card, tmp_path/'plain.png')
        card.locator('.colour').fill('#20a040')
        card.get_by_role('button', name='Place it').click()
        box = card.locator('.aim').bounding_box()
        repainted(card, lambda: page.mouse.click(box['x'] + box['width'] * .3, box['y'] + box['height'] * .6))
        x, y = card.locator('.placed span').inner_text().split(', ')
        repainted(card, lambda: card.locator('.placed input').fill('#2040c0'))
        download(page, card, tmp_path/'hinted.png')
        page.wait_for_function("!document.querySelector('.save').disabled")
        repainted(card, lambda: card.get_by_role('button', name='Remove color 1').click())
        assert card.locator('.placed li').count() == card.locator('.marks i').count() == 0
        download(page, card, tmp_path/'removed.png')
        assert plain == 'a-color.png' and page.errors == []
    assert main(['colorize', str(src), '--out', str(tmp_path/'command.png'), '--hint', f'{x},{y},#2040c0']) == 0
    plain, hinted, removed, theirs = (np.asarray(Image.open(tmp_path/f'{n}.png').convert('RGB')).astype(int)
                                      for n in ('plain', 'hinted', 'removed', 'command'))
    assert np.percentile(np.abs(hinted - theirs), 99.9) <= 1
    blue = lambda rgb: int(rgb[int(y), int(x), 2]) - int(rgb[int(y), int(x), 0])
    assert blue(hinted) > blue(plain) + 20 and np.array_equal(plain, removed)


def test_hints_by_keyboard_and_on_a_phone(address, tmp_path):
    with window(390, 844, phone=True) as page:
        page.goto(address)
        card = choose(page, photo(tmp_path, 'a.png', .3)).first
        card.get_by_role('button', name='Place it').press('Enter')
        for key in 'ArrowRight', 'Shift+ArrowUp': page.keyboard.press(key)
        assert page.locator('#status').inner_text() == 'The cross is 51 % from the left and 40 % from the top.'
        repainted(card, lambda: page.keyboard.press('Enter'))
        box = card.locator('.aim').bounding_box()
        repainted(card, lambda: page.touchscreen.tap(box['x'] + box['width'] * .25, box['y'] + box['height'] * .5))
        width, height = map(int, card.locator('.facts').inner_text().split(',')[0].split(' × '))
        places = [[int(v) for v in t.split(', ')] for t in card.locator('.placed span').all_inner_texts()]
        assert np.allclose(places, [(.51 * width, .4 * height), (.25 * width, .5 * height)], atol=1.5)
        assert page.evaluate('document.documentElement.scrollWidth') <= 390
        remove = card.get_by_role('button', name='Remove color 1')
        assert min(remove.bounding_box()[k] for k in ('width', 'height')) >= 24
        repainted(card, lambda: remove.press('Enter'))
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == 'Remove color 1'
        card.locator('.aim').press('Escape')
        assert page.evaluate("document.activeElement.className").startswith('place')
        assert card.locator('.aim').is_hidden() and card.locator('.cut').is_visible()
        assert page.errors == []


simulated = ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader']


@pytest.fixture
def small(site, tmp_path):
    """The page with a network that sees 32 pixels, because a simulated graphics card is slow: its
    folder and its address."""
    out = shutil.copytree(site, tmp_path/'small')
    facts = json.loads((out/'network.json').read_text())
    (out/'network.json').write_text(json.dumps(facts | dict(size=32)))
    with served(functools.partial(Quiet, directory=out)) as url: yield out, url


def colorized_by(url, src, args=()):
    "What a page says of a photo, and the pixels that it saves."
    with window(args=args) as page:
        page.goto(url)
        card = choose(page, src).first
        assert card.get_attribute('data-state') == 'done', card.inner_text()
        facts = card.locator('.facts').inner_text()
        download(page, card, src.with_name('out.png'))
        assert page.errors == []
    return facts, np.asarray(Image.open(src.with_name('out.png')).convert('RGB')).astype(int)


def test_the_graphics_card_paints_the_same(small, tmp_path):
    "WebGPU and WebAssembly agree to the level; the page says which it was, and does not take a simulated card unasked."
    src, url = photo(tmp_path, 'a.png', .2), small[1]
    facts, card = colorized_by(url + '?gpu=any', src, simulated)
    assert facts.endswith('by WebGPU')
    no_gpu = ['--disable-gpu', '--disable-features=WebGPU']
    for address, args in (url, simulated), (url + '?gpu=no', simulated), (url + '?gpu=any', no_gpu):
        facts, processor = colorized_by(address, src, args)
        assert facts.endswith('by WebAssembly')
    assert np.abs(card - processor).max() <= 1 and np.ptp(card, axis=2).max() > 10


@pytest.mark.parametrize('fault', ["throw new Error('no memory')",
                                   "return {run: async () => { throw new Error('the device is lost'); }}",
                                   "return {run: async () => ({ab: {data: new Float32Array([1, NaN])}})}"])
def test_a_graphics_card_that_fails(small, tmp_path, fault):
    "Whether it cannot start, gets lost or answers nonsense: WebAssembly takes over."
    out, url = small
    (out/'ort-gpu.wasm').write_bytes((out/'ort.wasm').read_bytes())
    (out/'ort-gpu.js').write_text("""import * as ort from './ort.js';
        export const env = ort.env, Tensor = ort.Tensor, InferenceSession = {create: async (graph, options) => {
            if (options.executionProviders[0] === 'webgpu') { FAULT; }
            return ort.InferenceSession.create(graph, options);
        }};""".replace('FAULT', fault))
    src = photo(tmp_path, 'a.png', .2)
    facts, ours = colorized_by(url + '?gpu=any', src, simulated)
    assert facts.endswith('by WebAssembly')
    assert np.array_equal(ours, colorized_by(url + '?gpu=no', src)[1])
