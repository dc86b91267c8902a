"""The same file has the same pixels for training, colorizing and evaluating."""

import io
import os
import struct
import weakref
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from colorgan.colorizer import Colorizer
from colorgan.core import ColorganError, ColorganWarning
from colorgan.evaluation import photo_at
from colorgan.photos.cache import make_cache
from colorgan.photos.files import encode, limits, read_pages, read_photo, unlimited
from colorgan.photos.refs import open_cache

side = 18 # the short side of a cache for photos of 16 pixels
red, clay, white = (200, 0, 0), (200, 100, 50), (255, 255, 255)
srgb, lab = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')


def grey(value, dtype): return Image.fromarray(np.full((side, side), value, dtype))


def overshooting():
    a = np.full((side, side), .5, np.float32)
    a[-1, -1] = 1.7
    return Image.fromarray(a)


def plain(mode, color): return Image.new(mode, (side, side), color)


def with_palette(im):
    "`im` with 8-bit colors out of a palette; the transparency is a part of the palette"
    return im.quantize(4)


def lying():
    "Left half red, right half white, stored on its side with a note which way is up"
    im = plain('RGB', white)
    im.paste(red, (0, 0, side // 2, side))
    exif = Image.Exif()
    exif[0x0112] = 6
    return im.rotate(90), dict(exif=exif)


# name: the image, what else is saved with it, and what is right for its first and its last pixel
odd = {
    # Numbers mean what their type says: 200 of 65,535 is nearly black, and half of 1 is in the middle.
    '16 bits.png': (grey(200, np.uint16), {}, (1, 1, 1), (1, 1, 1)),
    'float.tif': (grey(.5, np.float32), {}, (128, 128, 128), (128, 128, 128)),
    # One number above 1 does not turn the others black: it is clipped.
    'overshoot.tif': (overshooting(), {}, (128, 128, 128), white),
    # What shines through keeps its own color, as its transparency is kept with it; what cannot be seen is white.
    'half.png': (plain('RGBA', (*red, 128)), {}, red, red),
    'hidden.png': (plain('RGBA', (*red, 0)), {}, white, white),
    'palette.png': (with_palette(plain('RGBA', (*red, 0))), {}, white, white),
    'grey and alpha.png': (plain('LA', (90, 128)), {}, (90, 90, 90), (90, 90, 90)),
    # One list of formats for everybody, and JPEG 2000 is on it.
    'photo.jp2': (plain('RGB', red), {}, red, red),
    'inks.jpg': (plain('CMYK', (0, 255, 255, 0)), dict(quality=100), (255, 0, 0), (255, 0, 0)),
    'lab.tif': (ImageCms.profileToProfile(plain('RGB', clay), srgb, lab, outputMode='LAB'), {},
                clay, clay),
    'lying.png': (*lying(), red, white),
    # A broken profile is no profile, as in every viewer.
    'profile.png': (plain('RGB', red), dict(icc_profile=b'no profile'), red, red),
}


@pytest.mark.parametrize('name', odd)
def test_same_pixels_for_everybody(name, tmp_path):
    im, extra, first, last = odd[name]
    im.save(tmp_path/name, **extra)
    trained_on = open_cache(make_cache([tmp_path/name], tmp_path/'photos.cache', 16,
                                       say=lambda text: None)).bytes(0)
    colorized = np.asarray(read_photo(tmp_path/name).image.convert('RGB'))
    evaluated = np.asarray(photo_at(tmp_path/name))
    assert np.array_equal(trained_on, colorized) and np.array_equal(evaluated, colorized)
    assert np.abs(colorized[0, 0] - np.array(first)).max() <= 1
    assert np.abs(colorized[-1, -1] - np.array(last)).max() <= 1


def test_transparency_comes_back(tmp_path):
    plain('RGBA', (*red, 128)).save(tmp_path/'half.png')
    result = Colorizer(lambda L: np.zeros((*L.shape[:1], 2, *L.shape[2:]), np.float32),
                       32)(tmp_path/'half.png')
    assert result.mode == 'RGBA' and result.getchannel('A').getextrema() == (128, 128)


deep = np.random.default_rng(0).integers(0, 65536, (20, 30, 4), dtype=np.uint16)


def deep_png(a):
    "A PNG of 16 bits a channel, as any program writes it"
    def chunk(kind, data):
        checksum = struct.pack('>I', zlib.crc32(kind + data))
        return struct.pack('>I', len(data)) + kind + data + checksum
    lines = np.insert(a.astype('>u2').view(np.uint8).reshape(len(a), -1), 0, 0, axis=1)
    head = struct.pack('>IIBBBBB', a.shape[1], len(a), 16, {2: 4, 3: 2, 4: 6}[a.shape[2]], 0, 0, 0)
    return (b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', zlib.compress(lines.tobytes()))
            + chunk(b'IEND', b''))


@pytest.mark.parametrize('channels', [2, 3, 4], ids=['grey and alpha', 'RGB', 'RGBA'])
def test_16_bits_stay_16_bits(channels, tmp_path):
    "Of a path, of bytes, and of an image that Pillow has opened"
    path = tmp_path/'deep.png'
    path.write_bytes(deep_png(deep[..., :channels]))
    right = deep[..., :3] if channels > 2 else deep[..., :1].repeat(3, 2)
    for src in path, path.read_bytes(), Image.open(path):
        photo = read_photo(src)
        hidden = np.asarray(photo.alpha) == 0 if photo.alpha else np.zeros(deep.shape[:2], bool)
        assert np.array_equal(photo.deep, np.where(hidden[..., None], 65535, right)) and not photo.lost
        if channels != 3: assert np.abs(np.asarray(photo.alpha) * 257. - deep[..., channels - 1]).max() < 257


def test_numbers_far_above_white_are_said():
    a = np.full((20, 20), .5, np.float32)
    a[0, 0] = 40
    with pytest.warns(ColorganWarning, match='numbers up to 40, and nearly all of them are at most '
                                             '0.5: 1 was taken for white'):
        assert np.asarray(read_photo(a).image)[1, 1] == 128


def test_numbers_that_are_none_are_refused(tmp_path):
    a = np.full((20, 20), .5, np.float32)
    a[3, 3] = np.nan
    Image.fromarray(a).save(tmp_path/'nan.tif')
    for use in read_photo, photo_at:
        with pytest.raises(ColorganError, match='nan.tif holds numbers that are not finite'): use(tmp_path/'nan.tif')


def test_an_eps_is_not_run(tmp_path):
    path = tmp_path/'ghost.jpg'
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    for use in read_photo, photo_at, lambda p: make_cache([p], tmp_path/'x.cache', 16,
                                                          say=lambda text: None):
        with pytest.raises(ValueError, match='is not a photo|can be read|cannot be read'): use(path)


def pages(path, n, side=side):
    first, other = (plain('RGB', color).resize((side, side)) for color in (red, clay))
    first.save(path, save_all=True, append_images=[other] * (n - 1))
    return path


@pytest.mark.parametrize('limit, most, sentence', [('pixels', 100, 'has more than 0 megapixels'),
                                                   ('pages', 2, 'has 3 pages, more than 2'),
                                                   ('bytes', 100, 'has more than 0 MB'),
                                                   ('seconds', -1, 'takes longer than')])
def test_limits(limit, most, sentence, tmp_path, monkeypatch):
    path = pages(tmp_path/'scan.tif', 3)
    monkeypatch.setitem(limits, limit, most)
    with pytest.raises(ColorganError, match=f'scan.tif {sentence}.*--no-limits'): list(read_pages(path))
    with unlimited(): assert len(list(read_pages(path))) == 3


def test_pipes_and_empty_names_are_one_sentence(tmp_path):
    os.mkfifo(tmp_path/'pipe')
    for path, sentence in ((tmp_path/'pipe', 'is a pipe or a device'),
                           ('/dev/zero', 'is a pipe or a device'), ('', "there is no ''")):
        with pytest.raises(ColorganError, match=sentence): read_photo(path)


def test_pages_come_and_go_one_by_one(tmp_path):
    "While a TIFF of many pages is colorized, one page at a time is in memory."
    path, alive = pages(tmp_path/'scan.tif', 4), []
    def page(photo):
        alive.append(weakref.ref(photo.image))
        assert sum(r() is not None for r in alive) <= 2 # this one, and the one before, which is being written
        return photo.image
    content = encode(map(page, read_pages(path)), 'TIFF')
    result = Image.open(io.BytesIO(content))
    assert result.n_frames == 4
    for i, colour in enumerate((red, clay, clay, clay)):
        result.seek(i)
        assert result.convert('RGB').getpixel((3, 3)) == colour


def test_resolution_that_is_none_is_left_out(tmp_path):
    plain('RGB', red).save(tmp_path/'a.tif', dpi=(72, 72))
    content = (tmp_path/'a.tif').read_bytes()
    assert struct.pack('<II', 72, 1) in content
    (tmp_path/'a.tif').write_bytes(content.replace(struct.pack('<II', 72, 1), bytes(8)))
    assert 'dpi' not in read_photo(tmp_path/'a.tif').info
