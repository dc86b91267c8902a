"""Whatever lies in a folder of photos: nothing crashes, hangs, or is counted as a photo when it is
none; and a cache survives being killed."""
import hashlib
import http.server
import io
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from colorgan import core
from colorgan.photos import sources
from colorgan.photos.cache import cached, make_cache
from colorgan.core import ColorganError
from colorgan.photos.refs import open_cache
from colorgan.photos.files import open_photo
from colorgan.photos.sources import photo_files
from colorgan.photos.screen import Screening

formats = {'JPEG': '.jpg', 'PNG': '.png', 'WEBP': '.webp', 'GIF': '.gif', 'TIFF': '.tif',
           'BMP': '.bmp'}


@contextmanager
def at_most(seconds):
    def late(*args): raise TimeoutError(f'not done in {seconds} seconds')
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try: yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def photo(rng, fmt='JPEG', side=48):
    a = np.random.default_rng(rng.getrandbits(32)).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    Image.fromarray(a).resize((side, side), Image.BICUBIC).save(out := io.BytesIO(), fmt)
    return out.getvalue()


def png_chunk(kind, data):
    return (struct.pack('>I', len(data)) + kind + data
            + struct.pack('>I', zlib.crc32(kind + data)))


def bomb(rng):
    side = rng.choice([12_000, 30_000, 60_000, 2**31 - 1])
    rows = zlib.compress(bytes(min(side // 8 * 40, 40_000_000)), 9)
    return (b'\x89PNG\r\n\x1a\n' + png_chunk(b'IHDR',
                                             struct.pack('>IIBBBBB', side, side, 1, 0, 0, 0,
                                                         0)) + png_chunk(b'IDAT',
                                                         rows) + png_chunk(b'IEND', b''))


def flipped(rng):
    fmt = rng.choice(list(formats))
    b = bytearray(photo(rng, fmt))
    for _ in range(rng.choice([1, 5, 50])): b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
    return f'flipped{formats[fmt]}', bytes(b)


def truncated(rng):
    fmt = rng.choice(['JPEG', 'PNG', 'WEBP', 'BMP'])
    b = photo(rng, fmt)
    return f'cut{formats[fmt]}', b[:rng.randrange(len(b) * 3 // 4)]


def pretending(rng):
    heads = (b'', b'\0' * 100, b'<html>', b'PK\3\4', b'GIF89a', b'\xff\xd8\xff\xe0',
             b'\x89PNG\r\n\x1a\n', b'RIFF\0\0\0\0WEBP', b'II*\0', b'BM', b'%!PS')
    text = rng.choice(heads)
    return (f'text{rng.choice([".jpg", ".JPEG", ".png", ".TIF", ".webp", ".gif"])}',
            text + rng.randbytes(rng.choice([0, 3, 300])))


def bombed(rng): return 'bomb.png', bomb(rng)


kinds = {'flipped': flipped, 'truncated': truncated, 'pretending': pretending, 'bombed': bombed}
never_a_photo = {'truncated', 'pretending', 'bombed'}


def in_zip(rng, folder, name, content):
    """The file in a zip, which is sound, or lies about a checksum, or is cut off, or has evil
    names in it as well"""
    path, how = folder/'photos.zip', rng.choice(['sound', 'crc', 'cut', 'evil'])
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr(f'a/{name}', content)
        z.writestr('a/good.jpg', good := photo(rng))
        if how == 'evil':
            for n in '../../up.jpg', '/root.jpg', 'C:\\x.jpg', 'a/../../b.jpg', 'dir.jpg/':
                z.writestr(n, good if n[-1] != '/' else b'')
    b = bytearray(path.read_bytes())
    if how == 'crc' and good in b: b[b.index(good) + len(good) // 2] ^= 255
    path.write_bytes(b[:len(b) - 30] if how == 'cut' else b)
    return path, {'sound': 1, 'evil': 1, 'crc': 0, 'cut': None}[how]


def in_folder(rng, folder, name, content):
    "The file in a folder, under a name in some script, among links and things that are no files"
    deep = folder/rng.choice(['a', 'ä ö', '日本語', 'עברית', 'с пробелом', 'new\nline', '🙂',
                              'x' * 200])
    deep.mkdir()
    (deep/f'{rng.choice(["", "фото", "写真 ", "%s"])}{name}').write_bytes(content)
    (deep/'good.jpg').write_bytes(photo(rng))
    if rng.random() < .5: (deep/'loop').symlink_to(folder, target_is_directory=True)
    if rng.random() < .5: (deep/'nowhere.jpg').symlink_to('nowhere')
    if rng.random() < .5: (deep/'itself.jpg').symlink_to('itself.jpg')
    if rng.random() < .5: os.mkfifo(deep/'pipe.jpg')
    if rng.random() < .5: (deep/'folder.jpg').mkdir()
    if rng.random() < .3: (deep/os.fsdecode(b'caf\xe9.txt')).write_bytes(b'')
    return folder, 1


def check(seed, folder):
    rng = random.Random(seed)
    kind = rng.choice(list(kinds))
    name, content = kinds[kind](rng)
    source, n_good = rng.choice([in_zip, in_folder])(rng, folder, name, content)
    try: refs = photo_files(source)
    except ColorganError as e:
        assert n_good is None and 'zip' in str(e), str(e)
        return
    assert len(refs) == 2
    readable = []
    for r in refs:
        try: im = open_photo(r)
        except ColorganError as e: assert len(str(e)) < 500 or 'x' * 200 in str(e)
        else:
            assert im.mode == 'RGB' and min(im.size) > 0
            readable.append(r)
    bad = [r for r in refs if str(r).endswith(name)]
    assert not (kind in never_a_photo
                and set(bad) & set(readable)), f'{kind} {name} was taken for a photo'
    assert len([r for r in refs if str(r).endswith('good.jpg') and r in readable]) == n_good
    s = Screening(source, colour=0, smallest=1, aspect=1e9)
    assert s.counts()['left_out'].get('cannot be read', 0) == len(refs) - len(readable)
    if readable:
        cache = open_cache(make_cache(source, folder/'c.cache', size=16, say=lambda text: None))
        assert (len(cache), len(cache.names['skipped'])) == (len(readable),
                                                             len(refs) - len(readable))
    else:
        with pytest.raises(ColorganError, match='can be read'):
            make_cache(source, folder/'c.cache', size=16, say=lambda text: None)
        assert not list(folder.glob('c.cache*'))


@pytest.mark.parametrize('seed', range(60))
def test_malformed(seed, tmp_path):
    with at_most(20): check(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('start', range(60, 660, 100))
def test_malformed_many(start, tmp_path):
    for seed in range(start, start + 100):
        (tmp_path/str(seed)).mkdir()
        with at_most(30): check(seed, tmp_path/str(seed))


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    "As root may read every folder, the system's answer is a stand-in."
    (tmp_path/'good.jpg').write_bytes(photo(random.Random(0)))
    (tmp_path/'secret').mkdir()
    real = os.scandir
    def scandir(path):
        if Path(path).name == 'secret': raise PermissionError(13, 'Permission denied', path)
        return real(path)
    monkeypatch.setattr(os, 'scandir', scandir)
    with pytest.raises(ColorganError, match='secret cannot be read: Permission denied'): photo_files(tmp_path)


def encrypted(path, *names):
    "A zip of three photos and a text, of which `names` are marked as encrypted in its list of files"
    with zipfile.ZipFile(zipped(path), 'a') as z: z.writestr('img/notes.txt', '')
    content = bytearray(path.read_bytes())
    for name in names: content[content.rindex(f'img/{name}'.encode()) - 38] |= 1
    path.write_bytes(content)
    return path


def test_an_encrypted_zip_is_named(tmp_path):
    for names in ('1.jpg',), ('0.jpg', '1.jpg', '2.jpg', 'notes.txt'):
        with pytest.raises(ColorganError, match='photos in .*z.zip are encrypted: unpack it first'):
            photo_files(encrypted(tmp_path/'z.zip', *names))
    path = encrypted(tmp_path/'text.zip', 'notes.txt')
    assert (len(photo_files(path)), len(sources.other_files(path))) == (3, 1)


def test_a_zip_that_unfolds_to_gigabytes(tmp_path):
    with zipfile.ZipFile(tmp_path/'z.zip', 'w', zipfile.ZIP_DEFLATED) as z:
        z.writestr('a.jpg', bytes(210_000_000))
    with at_most(20), pytest.raises(ColorganError, match='unfolds'):
        open_photo(photo_files(tmp_path/'z.zip')[0])


@pytest.mark.parametrize('text',
                         ['', 'path\n', 'path\nmissing.jpg\n', '\0\0\0', 'a,b\n"unclosed',
                          'x.jpg\n' * 3])
def test_lists(text, tmp_path):
    (tmp_path/'list.csv').write_text(text)
    try: refs = photo_files(tmp_path/'list.csv')
    except ColorganError as e: assert 'photos' in str(e)
    else:
        for r in refs:
            with pytest.raises(ColorganError): open_photo(r)


def test_loaders_skip_and_count(tmp_path):
    from colorgan.data import get_dls
    rng = random.Random(0)
    for i in range(20): (tmp_path/f'{i:02}.jpg').write_bytes(photo(rng))
    for i in range(8): (tmp_path/f'{i:02}x.jpg').write_bytes(photo(rng)[:300])
    for workers in 0, 2:
        dls = get_dls(tmp_path, size=32, bs=4, valid=.25, num_workers=workers, device='cpu')
        assert [len(x) for x, _ in dls.train] == [4] * 5
        assert sum(len(x) for x, _ in dls.valid) == sum('x' not in p.stem
                                                        for p in dls.valid_ds.refs) < 7
        assert {Path(s).name for s in dls.skipped} == {f'{i:02}x.jpg' for i in range(8)}


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('COLORGAN_CACHE', str(tmp_path/'cache'))
    return tmp_path/'cache'


def test_all_that_is_held_out_is_unreadable(tmp_path, own_cache):
    from colorgan.data import get_dls
    for i in range(4): (tmp_path/f'{i}.jpg').write_bytes(photo(random.Random(i)))
    (tmp_path/'x.jpg').write_bytes(b'')
    dls = get_dls(tmp_path, size=32, bs=2, valid=[tmp_path/'x.jpg'], device='cpu')
    assert len(list(dls.train)) == 2
    with pytest.raises(ColorganError, match='not one of 1'): list(dls.valid)
    with pytest.raises(ColorganError, match='check on'):
        get_dls(tmp_path, size=32, valid=[tmp_path/'x.jpg'], device='cpu',
                cache=tmp_path/'kept')


@pytest.fixture
def web(tmp_path, monkeypatch):
    "A server of the files in a folder, by their names, to which all downloads go; `asked` has the ranges"
    (tmp_path/'web').mkdir()
    monkeypatch.setenv('COLORGAN_DATA', str(tmp_path/'data'))
    monkeypatch.setenv('HOME', str(tmp_path))
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            f, start = tmp_path/'web'/Path(self.path.split('?')[0]).name, int(self.headers['Range'][6:-1])
            asked.append((f.name, start))
            if not f.exists(): return self.send_error(404)
            content = f.read_bytes()
            self.send_response(206)
            self.send_header('Content-Length', str(len(content) - start))
            self.send_header('Content-Range', f'bytes {start}-{len(content) - 1}/{len(content)}')
            self.end_headers()
            self.wfile.write(content[start:start + (1000 if broken else len(content))])
        def log_message(self, *args): pass
    asked, broken, real = [], [], core.urlopen
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    def local(request, timeout):
        request.full_url = f"http://127.0.0.1:{server.server_port}/{request.full_url.split('/')[-1]}"
        return real(request, timeout=timeout)
    monkeypatch.setattr(core, 'urlopen', local)
    yield SimpleNamespace(folder=tmp_path/'web', asked=asked, broken=broken, data=tmp_path/'data')
    server.shutdown()


def zipped(path, n=3, folder='img'):
    with zipfile.ZipFile(path, 'w') as z:
        for i in range(n): z.writestr(f'{folder}/{i}.jpg', photo(random.Random(i)))
    return path


def tarred(path, files):
    with tarfile.open(path, 'w:gz') as t:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))


def readable(name, **kw): return [open_photo(r) for r in photo_files(name)]


def test_coco(web, monkeypatch, capsys):
    """Only some of a zip is asked for; a download that broke off goes on with the photo that is
    missing, and never takes other photos."""
    path = zipped(web.folder/'train2017.zip', 2400)
    web.broken.append(1)
    with pytest.raises(ColorganError, match='train2017.zip cannot be downloaded .*goes on where it was'):
        photo_files('coco')
    web.broken.clear()
    real, left = Path.write_bytes, [700]
    def write_bytes(path, content):
        if not left[0]:
            real(path, content[:len(content) // 2])
            raise KeyboardInterrupt
        left[0] -= 1
        real(path, content)
    with monkeypatch.context() as m, pytest.raises(KeyboardInterrupt):
        m.setattr(Path, 'write_bytes', write_bytes)
        photo_files('coco')
    web.asked.clear()
    assert len(readable('coco')) == 2000 and '2,000 photos are downloaded' in capsys.readouterr().err
    with zipfile.ZipFile(path) as z: begin = z.getinfo('img/700.jpg').header_offset
    assert all(start >= begin for _, start in web.asked[1:]), 'what is there is not asked for again'
    assert photo_files('coco') == photo_files('coco') and sorted(p.name for p in web.data.iterdir()) == ['coco']


def test_damaged_photo_of_coco(web):
    path = zipped(web.folder/'train2017.zip')
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(ColorganError, match='Bad CRC-32'): photo_files('coco')


new_enough = pytest.mark.skipif(not hasattr(tarfile, 'data_filter'),
                                reason='Python before 3.11.4 says that it cannot unpack a tar')


@new_enough
def test_coco_sample(web, monkeypatch):
    tarred(web.folder/'coco_sample.tgz',
           {f'coco_sample/train_sample/{i}.jpg': photo(random.Random(i)) for i in range(6)})
    with pytest.raises(ColorganError, match='checksum differs'): photo_files('coco-sample')
    monkeypatch.setattr(core, 'file_digest', lambda path, kind='sha256': '006cd55d633d94b36ecaf661467830ec')
    web.broken.append(1)
    with pytest.raises(ColorganError, match='coco_sample.tgz cannot be downloaded'): photo_files('coco-sample')
    web.broken.clear()
    assert len(readable('coco-sample')) == 6
    assert ('coco_sample.tgz', 1000) in web.asked, 'the download must go on where it broke off'
    found = photo_files('coco-sample')
    assert found == photo_files('coco-sample') != sorted(found)
    assert sorted(p.name for p in web.data.iterdir()) == ['coco_sample']


def test_nothing_can_be_downloaded(web):
    for name in 'coco', 'coco-sample', 'stl10', 'celeba', 'landscapes', 'lab-arrays':
        with pytest.raises(ColorganError, match='or give a folder or zip of your own photos'):
            photo_files(name)
    assert not list(web.data.glob('*'))


def test_an_old_python_does_not_unpack_tars(tmp_path, monkeypatch):
    monkeypatch.delattr(tarfile, 'data_filter', raising=False)
    with tarfile.open(tmp_path/'a.tgz', 'w:gz'): pass
    with pytest.raises(ColorganError, match='take a newer one'): sources.unpack(tmp_path/'a.tgz', tmp_path/'a')
    assert [p.name for p in tmp_path.iterdir()] == ['a.tgz']


@new_enough
def test_stl10(web, monkeypatch):
    import torchvision
    a = np.random.default_rng(0).integers(0, 255, (5, 3, 96, 96), dtype=np.uint8)
    tarred(web.folder/'stl10_binary.tar.gz',
           {'stl10_binary/train_X.bin': a[:2].tobytes(),
            'stl10_binary/unlabeled_X.bin': a[2:].tobytes()})
    with pytest.raises(ColorganError, match='checksum differs'): photo_files('stl10')
    monkeypatch.setattr(torchvision.datasets.STL10, 'tgz_md5',
                        hashlib.md5((web.folder/'stl10_binary.tar.gz').read_bytes()).hexdigest())
    assert np.array_equal(np.stack(readable('stl10')), a.transpose(0, 3, 2, 1))


def test_celeba_and_landscapes(web, monkeypatch):
    import torchvision
    content = zipped(web.folder/'download').read_bytes()
    monkeypatch.setattr(torchvision.datasets.CelebA, 'file_list',
                        [('id', hashlib.md5(content).hexdigest(), 'img_align_celeba.zip')])
    assert len(readable('celeba')) == 3
    (web.folder/'landscape-pictures').write_bytes(content[:-40])
    with pytest.raises(ColorganError, match='cut off'): photo_files('landscapes')
    (web.folder/'landscape-pictures').write_bytes(content)
    assert len(readable('landscapes')) == 3


@pytest.mark.parametrize('kind', ['float', 'uint8'])
def test_lab_arrays(web, kind):
    from skimage.color import rgb2lab
    rgb = [np.asarray(Image.open(io.BytesIO(photo(random.Random(i), 'PNG'))), dtype=np.uint8)
           for i in range(5)]
    lab = np.stack([rgb2lab(a) for a in rgb])
    stored = (lab.astype(np.float32) if kind == 'float'
              else (lab * (255 / 100, 1, 1) + (0, 128, 128)).round().astype(np.uint8))
    with zipfile.ZipFile(web.folder/'image-colorization', 'w') as z:
        for name, a in ('l/gray_scale', stored[..., 0]), ('ab/ab/ab1',
                                                          stored[:2, ..., 1:]), ('ab/ab/ab2',
                                                          stored[2:, ..., 1:]):
            np.save(out := io.BytesIO(), a)
            z.writestr(f'{name}.npy', out.getvalue())
    back = np.stack(readable('lab-arrays')).astype(int)
    assert np.abs(back - np.stack(rgb)).mean() < (.5 if kind == 'float' else 2.5)
    assert sorted(p.name for p in web.data.iterdir()) == ['lab-arrays']


def test_hugging_face(tmp_path, monkeypatch):
    pytest.importorskip('datasets')
    monkeypatch.setenv('HF_HOME', str(tmp_path/'home'))
    import datasets
    rows = {'label': [1, 2, 3],
            'photo': [Image.open(io.BytesIO(photo(random.Random(i), 'PNG')))
                      for i in range(3)]}
    features = datasets.Features(label=datasets.Value('int64'), photo=datasets.Image())
    (tmp_path/'set').mkdir()
    datasets.Dataset.from_dict(rows, features).to_parquet(str(tmp_path/'set'/'train.parquet'))
    monkeypatch.setattr(datasets.config, 'HF_DATASETS_CACHE', tmp_path/'home')
    source = f"hf:{tmp_path/'set'}"
    assert all(np.array_equal(a, b) for a, b in zip(readable(source), rows['photo'], strict=True))
    assert len(open_cache(make_cache(source, tmp_path/'c.cache', size=16,
                                     say=lambda text: None))) == 3
    datasets.Dataset.from_dict({'label': [1]}).to_parquet(str(tmp_path/'set'/'train.parquet'))
    with pytest.raises(ColorganError, match='no column of images'):
        sources._hf.cache_clear() or photo_files(source)


def batches(dl): return [y.cpu().numpy() for _, y in dl]


def test_many_photos_go_through_a_cache_by_themselves(tmp_path, own_cache, capsys):
    from colorgan.data import get_dls
    source, how = photos_in(tmp_path/'photos', 280), dict(size=32, bs=16, device='cpu')
    first = get_dls(source, **how)
    said = capsys.readouterr().out
    counts = f'{len(first.train_ds)} to train on, {len(first.valid_ds)} held out'
    assert 'will take about' in said and f'{counts}; left out: 40 cannot be read' in said
    assert type(first.train_ds).__name__ == 'CachedPhotos'
    assert len(first.skipped) == 40 and len(list(own_cache.iterdir())) == 1
    again = get_dls(source, **how)
    assert capsys.readouterr().out.count('\n') == 1
    for a, b in zip(batches(first.train), batches(again.train), strict=True):
        assert np.array_equal(a, b)
    plain = get_dls(source, cache=False, **how)
    names = [{Path(str(r)).name for r in d.valid_ds.refs} for d in (first, plain)]
    assert names[0] == {n for n in names[1]
                        if int(n[:4]) % 7}, 'the split must not depend on the cache'
    assert not capsys.readouterr().out


def test_a_copy_of_the_cache_brings_it_back(tmp_path, own_cache, capsys):
    from colorgan.data import get_dls
    source, drive, how = photos_in(tmp_path/'photos', 30), tmp_path/'drive', dict(size=32,
        bs=4, device='cpu')
    get_dls(source, cache=drive, **how)
    (kept,), (made,) = drive.iterdir(), own_cache.iterdir()
    assert kept.read_bytes() == made.read_bytes()
    made.unlink()
    capsys.readouterr()
    get_dls(source, cache=drive, **how)
    assert made.exists() and 'will take' not in capsys.readouterr().out
    (source/'new.jpg').write_bytes(photo(random.Random(5)))
    get_dls(source, cache=drive, **how)
    assert kept.read_bytes() == made.read_bytes() and 'made again' in capsys.readouterr().out
    assert len(list(own_cache.iterdir())) == 1
    assert len(get_dls(kept, screen=False, **how).train_ds) == 21


def test_no_room_for_a_cache(tmp_path, monkeypatch, capsys):
    from colorgan.data import get_dls
    source = photos_in(tmp_path/'photos', 280)
    (tmp_path/'file').write_text('')
    monkeypatch.setenv('COLORGAN_CACHE', str(tmp_path/'file'/'below'))
    assert type(get_dls(source, size=32, device='cpu').train_ds).__name__ == 'Photos'
    said = capsys.readouterr().out
    assert said.startswith('Photos are decoded again in every epoch') and said.count('\n') == 1
    with pytest.raises(ColorganError, match='cannot be written'):
        get_dls(source, size=32, device='cpu', cache=True)


maker = """import sys
from colorgan.photos.cache import cached, make_cache
make_cache(sys.argv[1], sys.argv[2], size=64, workers=2, say=lambda text: None)"""


def photos_in(folder, n):
    rng = random.Random(1)
    folder.mkdir()
    for i in range(n):
        (folder/f'{i:04}.jpg').write_bytes(photo(rng, side=200) if i % 7 else b'no photo')
    return folder


def killed_and_finished(source, out, rng, whole):
    "Starts the maker, kills it at a random size, until it was let through; returns how often it was killed"
    kills = 0
    while not out.exists():
        p = subprocess.Popen([sys.executable, '-c', maker, source, out])
        stop = rng.randrange(whole) if kills < 4 else 2 * whole
        part = out.with_name(f'{out.name}.colorgan-part')
        while p.poll() is None:
            try:
                if part.stat().st_size > stop: break
            except FileNotFoundError: pass # not yet there, or just whole
            time.sleep(.002)
        if p.poll() is None: kills += 1
        p.kill()
        p.wait()
    return kills


def kill_often(tmp_path, n, times):
    source = photos_in(tmp_path/'photos', n)
    whole = make_cache(source, tmp_path/'whole.cache', size=64, say=lambda text: None).read_bytes()
    rng, kills = random.Random(2), 0
    for i in range(times):
        kills += killed_and_finished(source, tmp_path/f'{i}.cache', rng, len(whole))
        assert (tmp_path/f'{i}.cache').read_bytes() == whole
        assert sorted(p.name for p in tmp_path.glob(f'{i}.cache*')) == [f'{i}.cache']
    assert kills >= times


def test_cache_survives_kills(tmp_path): kill_often(tmp_path, 300, 2)


@pytest.mark.slow
def test_cache_survives_many_kills(tmp_path): kill_often(tmp_path, 1000, 8)


def test_a_cache_is_not_made_in_the_place_of_its_source(tmp_path):
    out = make_cache(photos_in(tmp_path/'photos', 8), tmp_path/'x.cache', size=64, say=lambda text: None)
    before = out.read_bytes()
    (tmp_path/'link.cache').symlink_to(out)
    for to in out, tmp_path/'link.cache':
        with pytest.raises(ColorganError, match='holds the photos to be read'):
            make_cache([out], to, size=32, say=lambda text: None)
    assert out.read_bytes() == before
    assert len(open_cache(make_cache(out, tmp_path/'y.cache', size=32, say=lambda text: None))) == 6


def test_cache_when_the_disk_is_full(tmp_path):
    source = photos_in(tmp_path/'photos', 60)
    limited = f"""import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
try:
    {maker.replace(chr(10), chr(10) + '    ')}
except Exception as e: print(type(e).__name__, e)"""
    done = subprocess.run([sys.executable, '-c', limited, source, tmp_path/'c.cache'],
                          capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith('ColorganError') and 'cannot be written' in done.stdout, done.stdout + done.stderr
    assert not list(tmp_path.glob('c.cache*'))


def test_workers_go_when_their_parent_is_killed(tmp_path):
    source = photos_in(tmp_path/'photos', 1500)
    p = subprocess.Popen([sys.executable, '-c', maker, source, tmp_path/'c.cache'])
    part = tmp_path/'c.cache.colorgan-part'
    while not (part.exists() and part.stat().st_size > 5000): time.sleep(.005)
    p.kill()
    p.wait()
    until = time.time() + 20
    def left():
        return [d for d in Path('/proc').glob('[0-9]*') if (c := read(d/'cmdline'))
                and str(source).encode() in c]
    def read(f):
        try: return f.read_bytes()
        except OSError: return b''
    while left() and time.time() < until: time.sleep(.2)
    assert not left()


def test_a_zip_that_has_changed_is_opened_again(tmp_path):
    path = zipped(tmp_path/'z.zip', 2, 'old')
    assert [r.inner for r in photo_files(path)] == ['old/0.jpg', 'old/1.jpg']
    zipped(path, 3, 'new')
    os.utime(path, ns=(0, 0))
    assert [r.inner for r in photo_files(path)] == ['new/0.jpg', 'new/1.jpg', 'new/2.jpg']


def test_photos_of_a_zip_are_cached_and_a_damaged_copy_is_replaced(tmp_path, own_cache):
    refs = photo_files(zipped(tmp_path/'z.zip'))
    out = cached(refs, 32, keep=tmp_path/'drive')
    copy = tmp_path/'drive'/out.name
    copy.write_bytes(copy.read_bytes()[:100])
    assert cached(refs, 32, keep=tmp_path/'drive') == out
    assert copy.read_bytes() == out.read_bytes()


def test_a_collection_without_photos_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sources.names, 'nothing', lambda: [])
    with pytest.raises(ColorganError): photo_files('nothing')


def test_a_full_disk_is_not_blamed_on_the_archive(tmp_path, monkeypatch):
    path = zipped(tmp_path/'z.zip')
    def full(*args): raise OSError(28, 'No space left on device')
    monkeypatch.setattr(zipfile.ZipFile, 'extractall', full)
    with pytest.raises(ColorganError, match='No space left on device.*make room'): sources.unpack(path, tmp_path/'out')
    assert path.exists() and not list(tmp_path.glob('out*'))
