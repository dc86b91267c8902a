"""Fuzzing of all that comes from elsewhere: photos, `model.json`, graphs, the files of a run.
Whatever is in them, the answer is a result or one sentence.

A hundred examples each here; `python tests/test_fuzz.py --minutes 5` goes on for minutes in `make
slow`, for an hour in the nightly workflow: guided by the lines that an example reaches where
`atheris` is installed, otherwise with new examples in each round."""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import onnx

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if '--one' in sys.argv:
    import atheris
    watched = atheris.instrument_imports(include=['colorgan', 'PIL'])
else: watched = nullcontext()
with watched:
    from colorgan.colorizer import OnnxNet
    from colorgan.core import ColorganError
    from colorgan.engine.folder import RunFolder, status
    from colorgan.nets.weights import bundled_weights, read_model_json
    from colorgan.photos.files import read_photo

light = bundled_weights()['light']
fuzz = settings(max_examples=int(os.environ.get('COLORGAN_FUZZ', 100)), deadline=None,
                suppress_health_check=list(HealthCheck))
values = st.recursive(st.none() | st.booleans() | st.integers(-10**12, 10**12) | st.floats() | st.text(max_size=9),
                      lambda v: (st.lists(v, max_size=3)
                                 | st.dictionaries(st.text(max_size=9), v, max_size=3)),
                      max_leaves=6)


def mutated(draw, data):
    "`data` with some bytes changed, cut out, or put in"
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at, what = draw(st.integers(0, max(0, len(data) - 1))), draw(st.binary(max_size=6))
        data[at:at + draw(st.integers(0, 8))] = what
    return bytes(data)


def fuzzed_json(fields):
    "A strategy: bytes of a JSON file, with one field that is something else, or with other bytes"
    @st.composite
    def strategy(draw, good):
        if draw(st.booleans()): return mutated(draw, json.dumps(good).encode())
        d = json.loads(json.dumps(good))
        for _ in range(draw(st.integers(1, 2))):
            where = draw(st.sampled_from([d, *(v for v in d.values() if isinstance(v, dict))]))
            where[draw(st.sampled_from(fields))] = draw(values)
        return json.dumps(d).encode()
    return strategy


info = {k: v for k, v in json.loads((light/'model.json').read_text()).items() if k == 'recipe'}


place = tempfile.TemporaryDirectory()
folder = Path(place.name)
os.symlink(light/'model.safetensors', folder/'model.safetensors')


@fuzz
@given(data=st.data())
def test_fuzzed_model_json(data):
    content = data.draw(fuzzed_json([*info['recipe'], 'recipe'])(info))
    (folder/'model.json').write_bytes(content)
    try: recipe = read_model_json(folder)['recipe']
    except ColorganError as e: assert '\n' not in str(e)
    else: assert all(n <= 4096 for n in (recipe.size, *recipe.sizes))


@fuzz
@given(data=st.data())
def test_fuzzed_run_files(data):
    good = {'run.json': dict(recipe=dict(name='light'), seed=1),
            'progress.json': dict(stage='gan', epoch=6, epochs=20, batch=31, batches=125, share=.3,
                                  left=220, photos_per_s=85.2, host='x', time=1.),
            'log.jsonl': dict(stage='gan', epoch=5, ab_error=10.81)}
    for name, d in good.items(): (folder/name).write_bytes(json.dumps(d).encode() + b'\n')
    name = data.draw(st.sampled_from(list(good)))
    (folder/name).write_bytes(data.draw(fuzzed_json(list(good[name]))(good[name])))
    try: assert isinstance(status(folder), str)
    except ColorganError: pass # one sentence
    try: RunFolder(folder).log()
    except ColorganError: pass


@fuzz
@given(data=st.data())
def test_fuzzed_graph(data):
    model = onnx.load(light/'model.onnx')
    field = data.draw(st.sampled_from(['stride', 'size', 'weights']))
    props = {p.key: p.value for p in model.metadata_props}
    onnx.helper.set_model_props(model, props | {field: data.draw(st.text(max_size=9) | st.integers().map(str))})
    content = model.SerializeToString()
    (folder/'x.onnx').write_bytes(mutated(data.draw, content) if data.draw(st.booleans()) else content)
    try: net = OnnxNet(folder/'x.onnx')
    except ColorganError as e: assert '\n' not in str(e)
    else: assert 1 <= net.stride <= 1024 and 16 <= net.size <= 4096


@fuzz
@given(data=st.data())
def test_fuzzed_photos(data):
    from test_colorize import good_files
    files = test_fuzzed_photos.__dict__.setdefault('files', good_files())
    content = mutated(data.draw, data.draw(st.sampled_from(sorted(files.values()))))
    try: photo = read_photo(content)
    except ColorganError as e: assert '\n' not in str(e)
    else: assert photo.image.mode in ('L', 'RGB')


tests = {name: f for name, f in globals().copy().items() if name.startswith('test_')}


def guided(name, seconds):
    "Fuzz one test in this process, which then ends, with the corpus of earlier nights"
    corpus = Path('.fuzz')/name
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()): # an example is drawn from bytes: a few are not enough for one
        for i in range(16): (corpus/f'seed{i}').write_bytes(random.Random(i).randbytes(4096))
    options = [f'-max_total_time={seconds}', '-timeout=60', '-max_len=8192', '-len_control=0',
               f'-artifact_prefix={corpus}-']
    atheris.Setup([sys.argv[0], *options, str(corpus)], tests[name].hypothesis.fuzz_one_input)
    atheris.Fuzz()


def main(minutes):
    "Fuzz each test for its share of `minutes`; the exit status says whether all held"
    failed = 0
    for name in tests:
        end, share = time.monotonic() + 60 * minutes / len(tests), int(60 * minutes / len(tests))
        if find_spec('atheris'):
            failed |= subprocess.run([sys.executable, __file__, '--one', name, '--seconds', str(share)]).returncode
            continue
        while time.monotonic() < end and not failed:
            failed |= subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p',
                                      'no:cacheprovider', f'{__file__}::{name}'],
                                     env=os.environ | dict(COLORGAN_FUZZ='2000')).returncode
    return failed


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--minutes', type=float, default=5)
    parser.add_argument('--one', help=argparse.SUPPRESS)
    parser.add_argument('--seconds', type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one: guided(args.one, args.seconds)
    else: sys.exit(main(args.minutes))
