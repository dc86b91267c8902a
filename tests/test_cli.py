"""The command line: what users get wrong is one sentence and exit status 2, and what was there
before is there afterwards."""
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from colorgan.cli import commands, main
from colorgan.photos.sources import bundled_photos

colorgan = [sys.executable, '-c', 'import sys; from colorgan.cli import main; sys.exit(main())']
photo = next(p for p in bundled_photos() if p.stem == 'chelsea')


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    "A model folder of a network that is tiny and has learnt nothing."
    from colorgan.generator import create_gen
    from colorgan.recipes import replace
    from colorgan.nets.weights import save_model
    recipe = replace('pix2pix', size=32, gen_kw=dict(base=4))
    return save_model(tmp_path_factory.mktemp('weights')/'tiny', create_gen(recipe), recipe)


@pytest.fixture
def cat(tmp_path):
    path = tmp_path/'cat.jpg'
    Image.open(photo).resize((96, 64)).save(path)
    return path


@pytest.fixture
def run(capsys):
    def call(*words):
        "The exit status and what was printed; an error is one line on stderr, and nothing on stdout."
        try: status = main([str(w) for w in words])
        except SystemExit as e: status = e.code
        out, err = capsys.readouterr()
        if status == 2:
            assert err.startswith('colorgan: ') and err.count('\n') == 1, err
            assert 'should not have happened' not in err
        else: assert not err
        return status, out + err
    return call


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob('*'))
            if p.is_file()}


@pytest.mark.parametrize('name', commands)
def test_help(name, run):
    status, text = run(name, '--help')
    assert status == 0 and f'example: colorgan {name}' in text


def test_nothing_heavy_is_imported_before_it_is_needed():
    heavy = "'torch', 'fastai', 'matplotlib', 'timm', 'skimage', 'onnxruntime', 'safetensors'"
    code = (f'import sys, colorgan.cli, colorgan.use.album; print([m for m in ({heavy}) if m '
            'in sys.modules])')
    assert subprocess.run([sys.executable, '-c', code], capture_output=True,
                          text=True).stdout == '[]\n'


def test_colorize(tiny, cat, run, tmp_path):
    assert run('colorize', cat, '--out', tmp_path/'out', '--weights', tiny)[0] == 0
    assert list(files(tmp_path/'out')) == ['cat.jpg']
    assert Image.open(tmp_path/'out'/'cat.jpg').size == (96, 64)


def odd_photos():
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (20, 30), dtype=np.uint8)
    palette = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).quantize(8)
    yield 'one.png', Image.new('L', (1, 1), 100), {}
    yield 'sixteen.png', Image.fromarray(grey.astype(np.uint16) * 257), {}
    yield 'sixteen.tif', Image.fromarray(grey.astype(np.uint16) * 257), {}
    yield 'palette.png', palette, dict(transparency=bytes([0, 100, 200, 255, 255, 255, 255, 255]))
    yield 'cmyk.jpg', Image.fromarray(rng.integers(0, 256, (20, 30, 3),
                                                   dtype=np.uint8)).convert('CMYK'), {}
    yield 'bits.png', Image.fromarray(grey).convert('1'), {}
    yield 'long.png', Image.new('L', (5000, 2)), {}


@pytest.mark.parametrize(('name', 'im', 'kw'), list(odd_photos()),
                         ids=lambda x: x if isinstance(x, str) else '')
def test_odd_photos_are_colorized(name, im, kw, tiny, run, tmp_path):
    im.save(tmp_path/name, **kw)
    assert run('colorize', tmp_path/name, '--out', tmp_path/'out', '--weights', tiny, '--size',
               32)[0] == 0
    out = Image.open(tmp_path/'out'/name)
    assert out.size == im.size
    assert out.mode == ('RGBA' if kw else 'RGB')
    if kw:
        assert out.getchannel('A').tobytes() == Image.open(tmp_path/name).convert('RGBA').getchannel('A').tobytes()


bad_words = [
    ('colorize nowhere.jpg --out out',
     'there is no nowhere.jpg'), ('colorize text.jpg --out out', 'text.jpg is not a photo'),
    ('colorize half.jpg --out out',
     'half.jpg cannot be read'), ('colorize nothing.png --out out',
     'nothing.png is not a photo'),
    ('colorize empty --out out', 'no photos in empty'), ('colorize cat.jpg --out cat.jpg',
                                                         'written over'),
    ('colorize cat.jpg --out out --size -1',
     'size cannot be -1'), ('colorize cat.jpg --out out --saturation -1', 'saturation'),
    ('colorize cat.jpg --out out --format xyz', 'xyz'), ('colorize cat.jpg --out out.gif',
                                                         'out.gif'),
    ('colorize cat.jpg --out text.jpg/out',
     'text.jpg'), ('colorize cat.jpg --out out --device nonsense', 'nonsense'),
    ('colorize cat.jpg --out out --weights text.jpg',
     'text.jpg'), ('colorize cat.jpg --out out --weights damaged', 'damaged'),
    ('colorize cat.jpg --out out --weights other',
     'another recipe'), ('colorize cat.jpg cat.jpg', '--out'),
    ('evaluate --weights tiny empty', 'empty'), ('evaluate --weights tiny text.jpg',
                                                 'text.jpg'), ('evaluate --weights nowhere '
                                                               'cat.jpg', 'nowhere'),
    ('train empty --out run', 'empty'), ('train nowhere --out run',
                                         'nowhere'), ('train cat.jpg --out run --size -1',
                                         'size'),
    ('train cat.jpg --out run --recipe nonsense',
     'nonsense'), ('train bundled --out run --size 32 --init text.jpg', 'text.jpg'),
    ('train bundled --out text.jpg --size 32', 'text.jpg'), ('nonsense', 'nonsense'),
    ('colorize cat.jpg --out text.jpg', 'text.jpg is there already'),
    ('colorize cat.jpg --out map.png --sure map.png', 'give the map another name'),
    ('colorize cat.jpg --out out --format png --sure out/cat.png', 'give the map another name'),
    ('export tiny --onnx net.md', 'ends in .onnx'),
    ('evaluate --weights tiny cat.jpg --items 0', 'items cannot be 0'),
    ('evaluate --weights tiny cat.jpg --sizes 64,64', 'at least two working sizes'),
    ('evaluate --weights tiny cat.jpg --sheet x.gif', 'x.gif cannot be written'),
    ('train bundled --out run --size 32 --seed -1', 'seed cannot be -1'),
    ('train bundled --out run --size 32 --pretrain-minutes nan', 'pretrain_minutes cannot be nan'),
    ('train bundled --out run --recipe pix2pix --size 32 --gan-epochs 0', 'nothing would be trained'),
    ('train bundled --out run --recipe pix2pix --size 100 --bs 2', 'multiples of'),
    ('train bundled --out run --set n_critic=0', 'n_critic cannot be'),
    ('', 'COMMAND')]


@pytest.mark.parametrize(('words', 'said'), bad_words, ids=[w for w, _ in bad_words])
def test_bad_input(words, said, tiny, cat, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/'text.jpg').write_text('This is not a photo.')
    (tmp_path/'half.jpg').write_bytes(cat.read_bytes()[:1000])
    (tmp_path/'nothing.png').touch()
    (tmp_path/'empty').mkdir()
    for name in ('tiny', 'damaged', 'other'): shutil.copytree(tiny, tmp_path/name)
    weights = tmp_path/'damaged'/'model.safetensors'
    weights.write_bytes(weights.read_bytes()[:1000])
    info = tmp_path/'other'/'model.json'
    info.write_text(info.read_text().replace('"base": 4', '"base": 8'))
    before = files(tmp_path)
    if words.startswith('colorize') and '--weights' not in words: words += ' --weights tiny'
    status, text = run(*words.split())
    assert status == 2 and said in text, text
    assert files(tmp_path) == before


def test_a_folder_is_finished_though_some_photos_fail(tiny, cat, tmp_path, capsys):
    (tmp_path/'in'/'below').mkdir(parents=True)
    shutil.copy(cat, tmp_path/'in'/'below'/'a.jpg')
    shutil.copy(cat, tmp_path/'in'/'b.jpg')
    (tmp_path/'in'/'c\nd.jpg').write_text('This is not a photo.')
    assert main(['colorize', str(tmp_path/'in'), '--out', str(tmp_path/'out'), '--weights',
                 str(tiny)]) == 1
    out, err = capsys.readouterr()
    assert err.count('\n') == 1 and 'c\\nd.jpg' in err
    assert out.startswith('2 colorized')
    assert list(files(tmp_path/'out')) == ['b.jpg', 'below/a.jpg']


@pytest.fixture
def full_disk():
    "No file can grow above 4,096 bytes, which a program notices as it notices a full disk."
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk(tiny, cat, run, tmp_path, full_disk):
    status, text = run('colorize', cat, '--out', tmp_path/'out.png', '--weights', tiny)
    assert status == 2 and 'out.png cannot be written: File too large' in text
    assert list(files(tmp_path)) == ['cat.jpg']


def test_training_on_a_full_disk(tmp_path, run, full_disk):
    status, _ = run('train', 'bundled', '--out', tmp_path/'run', '--recipe', 'pix2pix',
                    '--size', 32, '--gan-epochs', 1, '--bs', 2)
    assert status == 2
    assert not list(tmp_path.rglob('*.safetensors')) and not list(tmp_path.rglob('*.part'))


@pytest.mark.skipif(not os.path.isdir('/proc/self'),
                    reason='without /proc, there is no folder where not even root may write')
def test_folder_that_nobody_may_write_to(tiny, cat, run):
    status, text = run('colorize', cat, '--out', '/proc/out', '--weights', tiny)
    assert status == 2 and 'cannot be written' in text


def test_ctrl_c_keeps_what_was_trained(tmp_path):
    run = tmp_path/'run'
    words = f'train bundled --out {run} --recipe pix2pix --size 32 --bs 2 --gan-epochs 100000 --device cpu'.split()
    process = subprocess.Popen([*colorgan, *words], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    deadline = time.time() + 120
    while not (run/'log.jsonl').exists() and process.poll() is None and time.time() < deadline:
        time.sleep(.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    said = [line for line in err.splitlines() if line.startswith('colorgan: ')]
    assert len(said) == 1 and str(run/'model') in said[0] and 'Traceback' not in err
    from colorgan.nets.weights import load_model
    load_model(run)


def test_ctrl_c_leaves_whole_photos(tiny, cat, tmp_path):
    for i in range(1000): os.link(cat, tmp_path/f'cat{i}.jpg')
    words = f'colorize {tmp_path} --out {tmp_path}/out --weights {tiny}'.split()
    # a shell's background ignores SIGINT
    process = subprocess.Popen([*colorgan, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    deadline = time.time() + 120
    while len(list(tmp_path.glob('out/*'))) < 3 and process.poll() is None and time.time() < deadline:
        time.sleep(.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, 'colorgan: stopped by Ctrl-C\n')
    assert 3 <= len(list(tmp_path.glob('out/*'))) < 1001
    for p in tmp_path.glob('out/*'): Image.open(p).load()


def test_without_out_results_lie_next_to_the_photos(tmp_path, capsys):
    "One photo, a folder, and a photo in a format that is not written; what is there already stays."
    for folder in ('album', 'trip.2019', 'trip.2020'): (tmp_path/folder).mkdir()
    for name in ('cat.jpg', 'cat.gif', 'album/one.jpg', 'trip.2019/one.jpg', 'trip.2020/one.jpg'):
        Image.new('RGB', (40, 32), 'gray').save(tmp_path/name)
    assert main(['colorize', str(tmp_path/'cat.jpg'), '--size', '32']) == 0
    assert main(['colorize', str(tmp_path/'cat.gif'), '--size', '32']) == 0
    assert main(['colorize', str(tmp_path/'cat.jpg'), '--size', '32', '--suffix=-c']) == 0
    for folder in ('album', 'trip.2019', 'trip.2020'):
        assert main(['colorize', str(tmp_path/folder), '--size', '32']) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        'album', 'album-colorized', 'cat-c.jpg', 'cat-colorized.jpg', 'cat-colorized.png', 'cat.gif', 'cat.jpg',
        'trip.2019', 'trip.2019-colorized', 'trip.2020', 'trip.2020-colorized']
    assert [p.name for p in (tmp_path/'album-colorized').rglob('*.jpg')] == ['one.jpg']
    assert 'cat-colorized.jpg' in capsys.readouterr().out
    assert main(['colorize', str(tmp_path/'cat.jpg'),
                 str(tmp_path/'cat.gif')]) == 2 and '--out' in capsys.readouterr().err


@pytest.mark.parametrize('words', [('export', 'light', '--onnx', 'FILE'),
                                   ('evaluate', 'bundled', '--json', 'FILE'),
                                   ('page', '--out', 'FOLDER'),
                                   ('evaluate', 'bundled', '--sheet', 'FILE'),
                                   ('evaluate', 'bundled', '--frontier', 'FILE'),
                                   ('compare', 'bundled', '--out', 'NEW', '--json', 'FILE'),
                                   ('inspect', 'bundled', '--out', 'FILE')], ids=' '.join)
def test_nothing_is_written_over_unasked(words, tmp_path, run):
    (tmp_path/'mine').mkdir()
    (tmp_path/'mine'/'diary.png').write_text('Dear diary')
    places = dict(FILE=tmp_path/'mine'/'diary.png', FOLDER=tmp_path/'mine', NEW=tmp_path/'new')
    status, text = run(*(places.get(w, w) for w in words))
    assert status == 2 and 'is there already: give another name, or --overwrite' in text
    assert (tmp_path/'mine'/'diary.png').read_text() == 'Dear diary' and len(os.listdir(tmp_path/'mine')) == 1


def test_if_no_recipe_could_be_trained_the_status_says_so(tmp_path, capsys):
    words = f'compare bundled --recipes light-plain --size 24 --photos 2 --out {tmp_path/"out"}'
    assert main(words.split()) == 2 and 'at least 48 pixels' in capsys.readouterr().out


def test_an_earlier_verdict_is_read_before_the_judging(tmp_path, cat, run):
    words = 'judge', '--truth', tmp_path, f'a={tmp_path}', '--with', 'nope.json', '--page', tmp_path/'page.html'
    assert 'nope.json cannot be read' in run(*words)[1] and files(tmp_path).keys() == {'cat.jpg'}


def test_weights_that_were_trained_further_are_read_again(tiny, cat, tmp_path):
    from colorgan import colorize
    from colorgan.nets.weights import load_model, save_model
    weights = shutil.copytree(tiny, tmp_path/'tiny')
    before, gen = colorize(cat, weights), load_model(weights)
    for t in gen.parameters(): t.data *= 1.5
    save_model(weights, gen, gen.recipe)
    assert colorize(cat, weights).tobytes() != before.tobytes()


def test_a_sheet_of_inspect_may_be_drawn_again(tmp_path, run, cat):
    for _ in range(2): assert run('inspect', cat, '--out', tmp_path/'inspect.png')[0] == 0


def test_what_is_left_alone_is_counted_and_named(tmp_path, tiny, cat, capsys):
    (tmp_path/'album').mkdir()
    shutil.move(cat, tmp_path/'album'/'cat.jpg')
    for name in 'IMG_1.HEIC', 'notes.txt', '.hidden': (tmp_path/'album'/name).write_text('')
    assert main(['colorize', str(tmp_path/'album'), '--out', str(tmp_path/'out'), '--weights', str(tiny)]) == 0
    said = capsys.readouterr().err
    assert '2 other files were left alone: ' in said
    assert 'IMG_1.HEIC' in said and 'notes.txt' in said and 'hidden' not in said


@pytest.mark.parametrize('words, sentence', [(['', '--out', 'x'], "there is no photo ''"),
                                             (['PIPE', '--out', 'x.png'], 'is a pipe or a device'),
                                             (['/dev/stdin', '--out', 'x.png'], 'is a pipe or a device')])
def test_odd_inputs(words, sentence, tmp_path, tiny):
    os.mkfifo(tmp_path/'PIPE')
    done = subprocess.run([*colorgan, 'colorize', *words, '--weights', str(tiny)],
                          capture_output=True, text=True, cwd=tmp_path, input='', timeout=60)
    assert done.returncode == 2 and sentence in done.stderr, done.stderr
    assert done.stderr.count('\n') <= 2 and os.listdir(tmp_path) == ['PIPE'], done.stderr


@pytest.mark.parametrize('words', [('evaluate', ''), ('inspect', ''),
                                   ('cache', '', '--out', 'x.cache'), ('train', '', '--out', 'run'),
                                   ('colorize', 'cat.jpg', '--out', ''),
                                   ('evaluate', 'cat.jpg', '--json', '')], ids=' '.join)
def test_an_empty_variable_is_not_the_folder_one_is_in(words, cat, run, monkeypatch):
    monkeypatch.chdir(cat.parent)
    before = sorted(os.listdir())
    status, text = run(*words)
    assert status == 2 and text.count('\n') == 1 and 'is a variable empty?' in text and sorted(os.listdir()) == before


def test_process_substitution_is_told_what_to_do(tmp_path, tiny, cat):
    "A name such as /dev/fd/63 is a pipe; what comes out of it can be sent to `-`."
    shell = lambda line: subprocess.run(['bash', '-c', line, 'bash', *map(str, colorgan)],
                                        capture_output=True, text=True, cwd=tmp_path, timeout=60)
    done = shell(f'"$@" colorize <(cat {cat}) --out x.png --weights {tiny}')
    assert done.returncode == 2
    assert ('is a pipe or a device, not a file: send what comes out of it to '
            '`colorgan colorize -`') in done.stderr
    done = shell(f'"$@" colorize - --out x.png --weights {tiny} < <(cat {cat})')
    assert done.returncode == 0 and Image.open(tmp_path/'x.png').size == Image.open(cat).size


def test_two_photos_for_one_name_are_told_what_to_do(tmp_path, run, tiny):
    for name in 'a.png', 'a.gif': Image.new('RGB', (40, 32), 'gray').save(tmp_path/name)
    status, text = run('colorize', tmp_path/'a.png', tmp_path/'a.gif', '--out', tmp_path/'out', '--weights', tiny)
    assert status == 2 and 'rename one of them, or colorize it by itself' in text and not (tmp_path/'out').exists()


def test_a_photo_that_is_too_large_is_named(tmp_path, tiny, monkeypatch, capsys):
    from colorgan.photos.files import limits
    monkeypatch.setitem(limits, 'pixels', 2000)
    (tmp_path/'album').mkdir()
    Image.new('RGB', (64, 64)).save(tmp_path/'album'/'poster.png')
    Image.new('RGB', (40, 32)).save(tmp_path/'album'/'small.png')
    assert main(['colorize', str(tmp_path/'album'), '--out', str(tmp_path/'out'), '--weights', str(tiny)]) == 1
    assert ('poster.png has more than 0 megapixels: make it smaller first, or, if you trust it, '
            'lift the limits (--no-limits)') in capsys.readouterr().err
    assert os.listdir(tmp_path/'out') == ['small.png']


def test_a_stream_without_end_is_given_up(tiny, tmp_path, run, monkeypatch):
    from colorgan.photos.files import limits
    monkeypatch.setitem(limits, 'bytes', 10_000)
    with open('/dev/zero', 'rb') as zero:
        monkeypatch.setattr(sys, 'stdin', type('Stdin', (), dict(buffer=zero)))
        status, text = run('colorize', '-', '--out', tmp_path/'x.png', '--weights', tiny)
    assert status == 2 and 'has more than 0 MB' in text


def test_a_reader_that_has_seen_enough(tmp_path):
    "As `colorgan recipes | head -1`, when `head` is through already."
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*colorgan, 'recipes'], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.stderr == '' and done.returncode == 141


def test_ctrl_c_in_the_first_second(tmp_path, cat):
    "As soon as `colorgan` itself runs, and a little later each time."
    code = ("import os, sys, runpy; os.write(1, b'x'); sys.argv = ['colorgan', *sys.argv[1:]]; "
            "runpy.run_module('colorgan', run_name='__main__')")
    command = [sys.executable, '-c', code, 'colorize', str(cat), '--out', 'x.png', '--overwrite']
    for seconds in (0, .03, .1, .2, .4, .8):
        p = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             text=True, env=os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path)))
        p.stdout.read(1)
        time.sleep(seconds + .02) # of these, runpy takes the first
        p.send_signal(signal.SIGINT)
        said = p.communicate(timeout=60)[1]
        # -SIGINT: it was done, and Python about to end; a shell calls this 130 too
        assert 'Traceback' not in said and p.returncode in (0, 130, -signal.SIGINT), (seconds, said)


def test_export_without_its_extra_says_what_to_install(monkeypatch, tmp_path, capsys):
    for name in [m for m in sys.modules if m.startswith('colorgan.use.onnx')]: monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'onnxscript', None)
    assert main(['export', 'light', '--onnx', str(tmp_path/'x.onnx')]) == 2
    assert capsys.readouterr().err == "colorgan: exporting needs onnx and onnxscript: pip install 'colorgan[onnx]'\n"
