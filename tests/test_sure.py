"""How sure a colorizer is: the map on the command line, and what holds of it whatever the network."""
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from colorgan.cli import main
from colorgan.colorizer import SURE, Colorizer, colorize
from colorgan.photos.sources import bundled_photos

photo = next(p for p in bundled_photos() if p.stem == 'chelsea')
results = json.loads((Path(__file__).parent.parent/'nbs'/'results'/'sure.json').read_text(encoding='utf-8'))


def chroma(im): return np.asarray(im.convert('HSV'))[..., 1].mean()


def test_the_map_is_a_picture_of_the_photos_size(tmp_path):
    assert main(['colorize', str(photo), '--out', str(tmp_path/'a.png'), '--sure', str(tmp_path/'sure.png')]) == 0
    im = Image.open(tmp_path/'sure.png')
    assert (im.mode, im.size) == ('L', Image.open(photo).size) and np.asarray(im).std() > 5
    assert np.abs(np.asarray(im) / 255 - Colorizer().sure(photo)).max() < .01


def test_the_network_is_loaded_once(tmp_path, monkeypatch):
    from colorgan import colorizer
    loaded, network = [], colorizer.network
    monkeypatch.setattr(colorizer, 'network', lambda *args: loaded.append(args[0]) or network(*args))
    assert main(['colorize', str(photo), '--out', str(tmp_path/'a.png'), '--sure', str(tmp_path/'sure.png')]) == 0
    assert loaded == ['light'] and (tmp_path/'sure.png').exists()


def test_guesses_stay_pale(tmp_path):
    photo = next(p for p in bundled_photos() if p.stem == 'astronaut')
    for how in 'colour', 'grey':
        out = str(tmp_path/f'{how}.png')
        assert main(['colorize', str(photo), '--out', out, '--unsure', how]) == 0
    assert .3 < chroma(Image.open(tmp_path/'grey.png')) / chroma(Image.open(tmp_path/'colour.png')) < .97
    assert chroma(colorize(photo, unsure='grey')) == chroma(Image.open(tmp_path/'grey.png'))


@pytest.mark.parametrize('words, said', [
    (['a.jpg', 'b.jpg', '--out', 'x', '--sure', 's.png'], 'for one photo'),
    (['-', '--out', '-', '--sure', 's.png'], 'not in a pipe'),
    ([str(photo), '--out', 'x.png', '--sure', 's.jpg'], 'goes into a PNG'),
    ([str(photo), '--out', 'x.png', '--unsure', 'blue'], 'invalid choice')])
def test_what_cannot_be_is_one_sentence(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.stdout.isatty', lambda: False, raising=False)
    assert main(['colorize', *words]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count('\n') == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize('result', results, ids=lambda r: r['weights'])
def test_where_it_is_sure_it_errs_less(result):
    """The figures were measured with the two numbers that the library has; where it is surer, it is
    right more often, beyond chance."""
    assert result['used'] == list(SURE), 'run benchmarks/sure.py again'
    first, last = result['curve'][0], result['curve'][-1]
    assert first['interval'][1] < last['interval'][0] and last['error'] < first['error'] / 2
