"""`colorgan judge`: pairs, protocol, intervals, refusals, and a blind test that talks to nobody."""
import json
import re

import numpy as np
import pytest
from browser import page as window
from PIL import Image

from colorgan.cli import main
from colorgan.core import ColorganError
from colorgan.judge.folders import merged, read_verdict
from colorgan.photos.sources import bundled_photos


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    "The truth, a copy with half the chroma, a grey one that has half the size."
    root = tmp_path_factory.mktemp('judge')
    for name in 'truth', 'pale', 'grey': (root/name).mkdir()
    for p in bundled_photos()[:4]:
        im = Image.open(p).convert('RGB').resize((48, 36))
        im.save(root/'truth'/f'{p.stem}.png')
        Image.blend(im.convert('L').convert('RGB'), im, .5).save(root/'pale'/f'{p.stem}.tif')
        im.convert('L').resize((24, 18)).save(root/'grey'/f'{p.stem}.png')
    return root


def judge(folders, *words): return main(['judge', '--truth', str(folders/'truth'), *map(str, words)])


def test_a_verdict(folders, tmp_path, capsys):
    files = {k: tmp_path/f'{k}.{e}' for k, e in dict(json='json', sheet='png', frontier='png', page='html').items()}
    words = [w for k, f in files.items() for w in (f'--{k}', f)]
    assert judge(folders, f'pale={folders/"pale"}', f'grey2={folders/"grey"}', f'same={folders/"truth"}', *words) == 0
    out, verdict = capsys.readouterr().out, json.loads(files['json'].read_text())
    assert [r['name'] for r in verdict['rows']] == ['same', 'pale', 'grey2']
    assert verdict['protocol'] in out and 'grey2: 4 results had another size' in out
    same, pale, grey = verdict['rows']
    assert same['ab'] == 0 and same['mean_rank'] == 1 and pale['ranks']['ab']['rank'] == 2
    lo, hi = pale['ranks']['ab']['interval']
    assert 0 < lo < pale['ranks']['ab']['difference'] < hi
    assert [round(p['cf'], 1) for p in same['frontier'] if p['factor'] == 1] == [1.0]
    page = files['page'].read_text()
    assert "default-src 'none'" in page and not re.search('https?://', page) and 'pale' not in page
    assert Image.open(files['sheet']).width > 100


def test_two_protocols_are_refused(folders, tmp_path, capsys):
    first = tmp_path/'first.json'
    assert judge(folders, f'pale={folders/"pale"}', '--json', first) == 0
    assert judge(folders, f'same={folders/"truth"}', '--with', first) == 0
    assert '| pale |' in capsys.readouterr().out
    second = tmp_path/'second.json'
    assert judge(folders, f'same={folders/"truth"}', '--with', first, '--size', 32, '--json', second) == 2
    out, err = capsys.readouterr()
    assert 'two protocols do not go into one table' in err and err.count('\n') == 1
    assert '| same |' in out and [r['name'] for r in json.loads(second.read_text())['rows']] == ['same']
    (tmp_path/'fewer').mkdir()
    for p in sorted((folders/'pale').iterdir())[1:]: (tmp_path/'fewer'/p.name).write_bytes(p.read_bytes())
    assert judge(folders, f'pale={tmp_path/"fewer"}', '--with', first) == 2


@pytest.mark.parametrize('content, said', [
    (None, 'cannot be read as a verdict'), ('{', 'cannot be read as a verdict'), ('[]', 'is not a verdict'),
    ('{"protocol": "p"}', 'is not a verdict'), ('{"protocol": "p", "rows": [{"name": "a"}]}', 'is not a verdict')])
def test_what_is_no_verdict_is_refused(content, said, tmp_path):
    if content is not None: (tmp_path/'v.json').write_text(content)
    for read in read_verdict, lambda path: merged(dict(protocol='p', rows=[]), path):
        with pytest.raises(ColorganError, match=said): read(tmp_path/'v.json')


@pytest.mark.parametrize('words, said', [
    (['pale'], 'NAME=FOLDER'), (['a=nowhere'], 'nowhere'), (['truth=truth'], 'cannot be called'),
    (['a=truth', 'a=truth'], 'a name of its own'), (['a=truth', '--protocol', 'mine'], "no protocol 'mine'"),
    (['a=other'], 'no result for any')])
def test_what_does_not_fit_is_one_sentence(folders, tmp_path, capsys, words, said):
    (folders/'other').mkdir(exist_ok=True)
    Image.new('RGB', (9, 9)).save(folders/'other'/'else.png')
    words = [re.sub('=(truth|other)$', lambda m: f'={folders/m[1]}', w) for w in words]
    assert judge(folders, *words, '--json', tmp_path/'out.json') == 2
    err = capsys.readouterr().err
    assert said in err and err.count('\n') == 1 and not (tmp_path/'out.json').exists()


def test_only_what_all_have_is_judged(folders, tmp_path, capsys):
    (tmp_path/'few').mkdir()
    for p in sorted((folders/'truth').iterdir())[:2]: Image.open(p).save(tmp_path/'few'/p.name)
    assert judge(folders, f'few={tmp_path/"few"}', f'pale={folders/"pale"}', '--json', tmp_path/'v.json') == 0
    verdict = json.loads((tmp_path/'v.json').read_text())
    assert verdict['n'] == 2 and 'few has no result for 2 of 4 photos' in verdict['notes'][0]


@pytest.mark.slow
def test_the_blind_test_in_a_browser(folders, tmp_path):
    "Every photo is asked about once; the answers and the table say what was clicked, and nothing is loaded."
    assert judge(folders, f'pale={folders/"pale"}', f'süß={folders/"truth"}', '--page', tmp_path/'blind.html') == 0
    asked = []
    with window(width=1000, height=700) as tab:
        tab.on('request', lambda r: asked.append(r.url))
        tab.goto((tmp_path/'blind.html').as_uri())
        for i in range(4):
            assert f'Photo {i + 1} of 4' in tab.inner_text('#said')
            versions = tab.locator('#versions button')
            assert versions.count() == 3
            assert all(versions.locator('img').evaluate_all('them => them.map(im => im.decode() && true)'))
            versions.nth(i % 3).focus()
            tab.keyboard.press('Enter')
        rows = [r.split('\t') for r in tab.inner_text('table').splitlines()]
        answers = json.loads(tab.locator('textarea').input_value())
        assert not tab.errors
    assert {stem for stem, _ in answers} == {p.stem for p in (folders/'truth').iterdir()}
    chosen = [name for _, name in answers]
    assert {name.strip(): said for name, said in rows} == {
        name: f'{chosen.count(name)} of 4' for name in ('pale', 'süß', 'the photo itself')}
    assert all(url.startswith(('file:', 'data:')) for url in asked)


def test_an_interval_does_its_job():
    "The interval of a paired difference covers the true one about as often as it says."
    from colorgan.judge.folders import compared
    rng, covered = np.random.default_rng(0), 0
    for _ in range(60):
        a = rng.normal(size=40)
        v = compared({'a': {'m': a}, 'b': {'m': a + .5 + .3 * rng.normal(size=40)}}, -1, 'm')['b']
        covered += v['interval'][0] <= .5 <= v['interval'][1]
    assert 50 <= covered <= 60
