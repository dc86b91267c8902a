"""What results say of themselves, what they keep of a photo's file, and 16 bits: read back by
Pillow, tifffile and, where it is installed, exiftool."""
import io
import json
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image, ImageCms

from colorgan.cli import main
from colorgan.colorizer import Colorizer
from colorgan.colour.chroma import deep_luminance
from colorgan.colour.lab import deep_gamma
from colorgan.photos.files import encode, read_pages, read_photo
from colorgan.use.album import colorize_files

computed = 'http://cv.iptc.org/newscodes/digitalsourcetype/algorithmicallyEnhanced'
toy = Colorizer(lambda L: np.concatenate([12 - L / 5, 25 - L / 2], 1))
grey = Image.radial_gradient('L').resize((90, 60))
written = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
           b'<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/" '
           b'xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="Darkroom 3"><dc:title>'
           b'<rdf:Alt><rdf:li xml:lang="x-default">Oma &amp; ich</rdf:li></rdf:Alt></dc:title>'
           b'</rdf:Description></rdf:RDF></x:xmpmeta>')
iptc = b'\x1c\x02\x78\x00\x05Erika'
suffixes = 'jpg png webp tif'.split()


def exif():
    e = Image.Exif()
    e[0x010f], e[0x0112] = 'Leica', 1
    e.get_ifd(0x8769)[0x9003] = '1954:05:01 12:00:00'
    return e


@pytest.fixture
def old(tmp_path):
    "A JPEG with all that a JPEG can hold."
    app13 = b'Photoshop 3.0\x00' + b'8BIM\x04\x04\x00\x00' + len(iptc).to_bytes(4, 'big') + iptc
    path = tmp_path/'old.jpg'
    grey.save(path, exif=exif(), xmp=written, dpi=(300, 300),
              icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile('sRGB')).tobytes(),
              extra=b'\xff\xed' + (len(app13) + 2).to_bytes(2, 'big') + app13)
    return path


def exiftool(path):
    if not shutil.which('exiftool'): pytest.skip('exiftool is not installed')
    command = ['exiftool', '-j', '-G1', '-n', '-a', '-all', '-validate', '-warning', str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    return json.loads(done.stdout)[0]


@pytest.mark.parametrize('suffix', suffixes)
def test_pillow_reads_the_mark_and_what_was_there(old, tmp_path, suffix):
    colorize_files(old, tmp_path/f'out.{suffix}', toy, progress=False)
    im = Image.open(tmp_path/f'out.{suffix}')
    im.load()
    text = im.info['xmp'].decode()
    assert computed in text and 'colorgan' in text and 'Oma &amp; ich' in text and 'Darkroom 3' in text
    assert im.getexif()[0x010f] == 'Leica'
    assert im.getexif().get_ifd(0x8769)[0x9003] == '1954:05:01 12:00:00'
    assert im.info['icc_profile']


@pytest.mark.parametrize('suffix', suffixes)
def test_exiftool_reads_the_mark_and_what_was_there(old, tmp_path, suffix):
    colorize_files(old, tmp_path/f'out.{suffix}', toy, progress=False)
    found = exiftool(tmp_path/f'out.{suffix}')
    assert found['XMP-iptcExt:DigitalSourceType'] == computed
    assert found['XMP-xmp:CreatorTool'] == 'Darkroom 3'
    assert 'colorgan' in str(found['XMP-xmpMM:HistorySoftwareAgent'])
    assert found['XMP-dc:Title'] == 'Oma & ich'
    assert found['IFD0:Make'] == 'Leica' and found['ExifIFD:DateTimeOriginal'] == '1954:05:01 12:00:00'
    if suffix in ('jpg', 'tif'): assert found['IPTC:Caption-Abstract'] == 'Erika'
    if suffix == 'tif': assert found['IFD0:XResolution'] == 300
    expected = 'IPTCDigest', 'Missing required', 'SubSecTime', 'Non-standard', 'Compression'
    assert not [v for k, v in found.items() if k.endswith((':Error', ':Warning'))
                and not any(words in str(v) for words in expected)], found


def test_what_a_format_cannot_keep_is_said(old, tmp_path):
    for suffix, gone in dict(jpg=set(), png={'IPTC'}, webp={'IPTC', 'the resolution'}, tif=set()).items():
        report = colorize_files(old, tmp_path/f'out.{suffix}', toy, progress=False)
        assert {p.removeprefix('not kept: ').split(',')[0] for p in report.said} == gone


def test_no_mark(old, tmp_path, capsys):
    assert main(['colorize', str(old), '--out', str(tmp_path/'plain.png'), '--no-mark']) == 0
    assert 'not kept: IPTC, which PNG cannot hold: ' in capsys.readouterr().out
    xmp = Image.open(tmp_path/'plain.png').info['xmp']
    assert b'Darkroom 3' in xmp and b'colorgan' not in xmp and computed.encode() not in xmp
    assert main(['colorize', str(old), '--out', str(tmp_path/'marked.png')]) == 0
    assert b'weights light' in Image.open(tmp_path/'marked.png').info['xmp']


def test_the_same_photo_gives_the_same_file(old, tmp_path):
    for name in 'ab': colorize_files(old, tmp_path/f'{name}.jpg', toy, progress=False)
    assert (tmp_path/'a.jpg').read_bytes() == (tmp_path/'b.jpg').read_bytes()


def test_packet_that_is_damaged_or_too_long(tmp_path):
    grey.save(tmp_path/'broken.jpg', xmp=written[:200])
    report = colorize_files(tmp_path/'broken.jpg', tmp_path/'out.jpg', toy, progress=False)
    assert list(report.said) == ['not kept: the XMP, which is damaged']
    assert computed.encode() in Image.open(tmp_path/'out.jpg').info['xmp']
    long = written.replace(b'Oma', b'Oma' * 30000)
    encoded = encode(read_photo(io.BytesIO(long_png(long))).finish(toy(grey), toy.by), 'JPEG')
    xmp = Image.open(io.BytesIO(encoded)).info['xmp']
    assert computed.encode() in xmp and b'Oma' not in xmp
    (tmp_path/'long.png').write_bytes(long_png(long))
    report = colorize_files(tmp_path/'long.png', tmp_path/'long.jpg', toy, progress=False)
    assert list(report.said) == ['not kept: XMP, which JPEG cannot hold at such a length']


def long_png(xmp):
    from PIL.PngImagePlugin import PngInfo
    info, f = PngInfo(), io.BytesIO()
    info.add_itxt('XML:com.adobe.xmp', xmp.decode())
    grey.save(f, 'PNG', pnginfo=info)
    return f.getvalue()


def test_ultra_hdr_is_one_picture_and_says_so(tmp_path):
    gain = (b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
            b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            b'<rdf:Description rdf:about="" '
            b'xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/></rdf:RDF></x:xmpmeta>')
    grey.save(tmp_path/'phone.jpg', 'MPO', save_all=True, append_images=[grey.resize((20, 20))], xmp=gain)
    report = colorize_files(tmp_path/'phone.jpg', tmp_path/'out.jpg', toy, progress=False)
    assert sorted(report.said) == ['not kept: other pictures or films in the file',
                                   'not kept: the gain map for bright screens (HDR)']
    im = Image.open(tmp_path/'out.jpg')
    assert im.format == 'JPEG' and b'hdrgm' not in im.info['xmp'] and computed.encode() in im.info['xmp']


def steps_off(result, source):
    "How far the lightness of 16-bit results is from the source's levels, in steps of 65,535."
    return np.abs(np.interp(deep_luminance(result), deep_gamma(), np.arange(65536)) - source).max()


tones = np.sort(np.random.default_rng(0).integers(0, 65536, 90 * 60)).reshape(60, 90).astype(np.uint16)


@pytest.mark.parametrize('suffix', ['png', 'tif'])
def test_sixteen_bit_grey_stays_sixteen_bits(tmp_path, suffix):
    Image.fromarray(tones).save(tmp_path/f'scan.{suffix}')
    report = colorize_files(tmp_path/f'scan.{suffix}', tmp_path/f'out.{suffix}', toy, saturation=2, progress=False)
    assert report.said == {}
    assert steps_off(read_photo(tmp_path/f'out.{suffix}').deep, tones) < 1
    if suffix == 'tif':
        tifffile = pytest.importorskip('tifffile')
        assert steps_off(tifffile.imread(tmp_path/'out.tif'), tones) < 1


@pytest.mark.parametrize('how', [{}, dict(compression='zlib', predictor=True), dict(byteorder='>'),
                                 dict(rowsperstrip=7)],
                         ids=lambda h: ' '.join(map(str, h)) or 'raw')
def test_sixteen_bit_rgb_is_read_to_the_last_bit(tmp_path, how):
    tifffile = pytest.importorskip('tifffile')
    levels = np.random.default_rng(1).integers(0, 65536, (60, 90, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path/'scan.tif', levels, photometric='rgb', **how)
    assert np.array_equal(read_photo(tmp_path/'scan.tif').deep, levels)
    colorize_files(tmp_path/'scan.tif', tmp_path/'out.png', toy, progress=False)
    before, after = (deep_luminance(read_photo(tmp_path/n).deep) for n in ('scan.tif', 'out.png'))
    assert np.abs(np.interp(after, deep_gamma(), np.arange(65536))
                  - np.interp(before, deep_gamma(), np.arange(65536))).max() < 1


def test_sixteen_bit_profiles(tmp_path):
    "A scanner's grey with a gamma of 2.2, against LittleCMS in 8 bits."
    # the grey profile with a gamma of 2.2, made by hand: header, white point, curve
    tags = {b'wtpt': b'XYZ \0\0\0\0' + (np.array([.9642, 1, .8249]) * 65536).astype('>i4').tobytes(),
            b'kTRC': b'curv\0\0\0\0' + (1).to_bytes(4, 'big') + round(2.2 * 256).to_bytes(2, 'big') + b'\0\0',
            b'desc': b'desc\0\0\0\0\0\0\0\x05grey\0' + b'\0' * 79}
    at, table, body = 128 + 4 + 12 * len(tags), b'', b''
    for name, content in tags.items():
        content += b'\0' * (-len(content) % 4)
        table += name + (at + len(body)).to_bytes(4, 'big') + len(content).to_bytes(4, 'big')
        body += content
    head = bytearray(128)
    head[8:12], head[12:24], head[36:40] = b'\x02\x40\0\0', b'mntrGRAYXYZ ', b'acsp'
    head[68:80] = (np.array([.9642, 1, .8249]) * 65536).astype('>i4').tobytes()
    head[0:4] = (at + len(body)).to_bytes(4, 'big')
    icc = bytes(head) + len(tags).to_bytes(4, 'big') + table + body
    levels = np.arange(256, dtype=np.uint16)[None].repeat(4, 0)
    Image.fromarray(levels * 257).save(tmp_path/'16.tif', icc_profile=icc)
    Image.fromarray(levels.astype(np.uint8)).save(tmp_path/'8.tif', icc_profile=icc)
    deep, byte = (read_photo(tmp_path/f'{n}.tif') for n in (16, 8))
    assert deep.deep is not None and byte.image.mode == 'RGB', 'the profile is not understood'
    assert np.abs(deep.deep[:, 20:] / 257 - np.asarray(byte.image)[:, 20:, 1]).max() < 1.5
    for photo in deep, byte:
        result = ImageCms.ImageCmsProfile(io.BytesIO(photo.info['icc_profile']))
        assert 'sRGB' in ImageCms.getProfileDescription(result)


def test_sixteen_bits_into_a_jpeg_are_said_to_be_eight(tmp_path):
    Image.fromarray(tones).save(tmp_path/'scan.png')
    report = colorize_files(tmp_path/'scan.png', tmp_path/'out.jpg', toy, progress=False)
    assert list(report.said) == ['not kept: 16 bits a channel, which JPEG cannot hold']


def test_pages_keep_their_exif_their_depth_and_their_marks(tmp_path):
    fine, coarse = Image.fromarray(np.dstack([(tones // 257).astype(np.uint8)] * 3)), grey.copy()
    fine.info['rgb16'] = np.dstack([fine, fine, fine])[..., :3].astype(np.uint16) * 257
    for im in fine, coarse: im.info['exif'] = exif().tobytes()
    (tmp_path/'two.tif').write_bytes(encode([fine, coarse], 'TIFF'))
    colorize_files(tmp_path/'two.tif', tmp_path/'out.tif', toy, progress=False)
    pages = list(read_pages(tmp_path/'out.tif'))
    assert [p.deep is not None for p in pages] == [True, False]
    assert all(computed.encode() in p.info['xmp'] for p in pages)
    with Image.open(tmp_path/'out.tif') as im:
        for i in range(2):
            im.seek(i)
            assert im.getexif()[0x010f] == 'Leica' and im.getexif().get_ifd(0x8769)[0x9003].startswith('1954')


def test_toned_and_coloured_photos_are_said_to_be_so(tmp_path, capsys):
    brown = Image.merge('RGB', [grey.point(lambda v, k=k: int(v * k)) for k in (1., .85, .65)])
    brown.save(tmp_path/'sepia.png')
    toy(grey, 3).save(tmp_path/'colour.png')
    out = str(tmp_path/'out')
    assert main(['colorize', str(tmp_path/'sepia.png'), str(tmp_path/'colour.png'), '--out', out]) == 0
    text = capsys.readouterr().out
    assert 'the tone was taken away (--keep-tone leaves it): ' in text and 'in color already' in text
    main(['colorize', str(tmp_path/'sepia.png'), '--out', out, '--keep-tone', '--overwrite', '--saturation', '0'])
    off = np.abs(np.asarray(Image.open(tmp_path/'out'/'sepia.png')).astype(int) - np.asarray(brown))
    assert 'on top of the tone' in capsys.readouterr().out and np.percentile(off, 95) < 8
