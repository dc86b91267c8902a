"""The same file has the same pixels for training, colorizing and evaluating."""

import numpy as np
import pytest
from PIL import Image, ImageCms

from colorgan.colorizer import Colorizer
from colorgan.evaluation import photo_at
from colorgan.photos.cache import make_cache
from colorgan.photos.files import read_photo
from colorgan.photos.refs import open_cache

side = 18 # the short side of a cache for photos of 16 pixels
red, clay, white = (200, 0, 0), (200, 100, 50), (255, 255, 255)
srgb, lab = ImageCms.createProfile('sRGB'), ImageCms.createProfile('LAB')


def grey(value, dtype): return Image.fromarray(np.full((side, side), value, dtype))


def plain(mode, color): return Image.new(mode, (side, side), color)


def with_palette(im):
    "`im` with 8-bit colours out of a palette; the transparency is a part of the palette"
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
    # What shines through keeps its own colour, as its transparency is kept with it; what cannot be seen is white.
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
    assert np.abs(colorized[0, 0] - np.array(first)).max() <= 1 and np.abs(colorized[-1, -1] - np.array(last)).max() <= 1


def test_transparency_comes_back(tmp_path):
    plain('RGBA', (*red, 128)).save(tmp_path/'half.png')
    result = Colorizer(lambda L: np.zeros((*L.shape[:1], 2, *L.shape[2:]), np.float32),
                       32)(tmp_path/'half.png')
    assert result.mode == 'RGBA' and result.getchannel('A').getextrema() == (128, 128)


def test_an_eps_is_not_run(tmp_path):
    path = tmp_path/'ghost.jpg'
    path.write_bytes(b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n')
    for use in read_photo, photo_at, lambda p: make_cache([p], tmp_path/'x.cache', 16,
                                                          say=lambda text: None):
        with pytest.raises(ValueError, match='is not a photo|can be read|cannot be read'): use(path)
