"""The rules of the house: where each module may look, and what a newcomer finds under `colorgan`."""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parent.parent
source = root/'colorgan'
modules = {p.relative_to(root).with_suffix('').as_posix().replace('/', '.'): p
           for p in source.rglob('*.py') if not p.name.startswith('_')}
chapters = [p.stem.split('_', 1)[1] for p in sorted((root/'nbs').glob('[0-9][0-9]_*.ipynb'))]
public = ['colorize', 'Colorizer', 'colorize_files', 'colorize_film', 'train', 'evaluate', 'get_dls',
          'pretrain_learner', 'gan_learner',
          'replace', 'bundled_photos', 'ColorganError']


def imported(name):
    "The modules of ours that the module `name` imports, anywhere in it."
    found = set()
    for node in ast.walk(ast.parse(modules[name].read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import): found |= {a.name for a in node.names}
        if isinstance(node, ast.ImportFrom):
            package = name.rsplit('.', node.level)[0] if node.level else ''
            base = '.'.join(filter(None, (package, node.module)))
            found |= {base, *(f'{base}.{a.name}' for a in node.names)}
    return found & modules.keys()


def parent(name): return name.split('.')[1] if name.count('.') > 1 else None


files = {name: imported(name) for name in modules}


def circle(graph):
    "The names of a circle in a graph, or []."
    done, path = set(), []

    def visit(node):
        if node in path: return path[path.index(node):] + [node]
        if node in done: return []
        path.append(node)
        for target in sorted(graph[node]):
            if found := visit(target): return found
        done.add(path.pop())
        return []
    return next((found for node in sorted(graph) if (found := visit(node))), [])


def python(code):
    "What a fresh Python prints that runs `code`, as JSON."
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_no_two_files_import_each_other(): assert circle(files) == []


def test_no_two_folders_import_each_other():
    graph = {parent(name): set() for name in modules if parent(name)}
    for name, targets in files.items():
        if parent(name):
            graph[parent(name)] |= {parent(t) for t in targets if parent(t)} - {parent(name)}
    assert circle(graph) == []


def test_chapters_import_earlier_chapters_and_folders():
    number = {f'colorgan.{c}': i for i, c in enumerate(chapters)}
    assert [(name, t) for name in number
            for t in files[name] if number.get(t, -1) >= number[name]] == []


def test_circle_finds_one():
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'b'}}) == ['b', 'c', 'b']
    assert circle({'a': {'b', 'c'}, 'b': {'c'}, 'c': set()}) == []


def test_chapters_and_modules_mirror_each_other():
    exports = {}
    for p in (root/'nbs').rglob('*.ipynb'):
        if '.ipynb_checkpoints' in p.parts: continue
        found = re.search(r'"#\| default_exp ([\w.]+)', p.read_text(encoding='utf-8'))
        if found:
            exports[f'colorgan.{found[1]}'] = p.relative_to(root/'nbs').with_suffix('').as_posix()
    assert exports.keys() == modules.keys()
    assert [(m, p) for m, p in exports.items()
            if re.sub(r'\d+_', '', p).replace('/', '.') != m.removeprefix('colorgan.')] == []


def test_no_module_hides_a_public_name():
    assert {m.rsplit('.', 1)[1] for m in modules if not parent(m)}.isdisjoint(public)


def test_public_names():
    import colorgan
    assert sorted(colorgan.__all__) == sorted(public) and set(public) <= set(dir(colorgan))
    assert all(callable(getattr(colorgan, name)) for name in public)
    with pytest.raises(ImportError, match='nothing_like_it'): from colorgan import nothing_like_it # noqa: F401


def test_import_colorgan_imports_nothing_else():
    heavy = python('import json, sys, colorgan; print(json.dumps([m for m in sys.modules if '
                   'm.split(".")[0] in ("numpy", "PIL", "torch", "fastai")]))')
    assert heavy == []


def test_colorizing_needs_few_modules_and_no_torch():
    code = """import json, sys
from colorgan import colorize, bundled_photos
colorize(bundled_photos()[0], weights='light')
print(json.dumps(sorted(m for m in sys.modules if m.split('.')[0] in ('colorgan', 'torch', 'fastai', 'datasets'))))"""
    loaded = [m for m in python(code) if m in modules or not m.startswith('colorgan')]
    assert not [m for m in loaded if not m.startswith('colorgan')], 'colorizing needs no torch, fastai or data sets'
    # which only found the photo for this test
    needed = [m for m in loaded if m != 'colorgan.photos.sources']
    assert len(needed) <= 10, needed


def test_python_m_colorgan():
    done = subprocess.run([sys.executable, '-m', 'colorgan', '--help'], capture_output=True,
                          text=True, cwd=root)
    assert done.returncode == 0 and 'colorize' in done.stdout


def test_nine_lines_in_ten_are_short():
    "Up to 95 columns; ruff refuses more than 120."
    books = [json.loads(p.read_text(encoding='utf-8')) for p in (root/'nbs').rglob('*.ipynb')
             if '.ipynb_checkpoints' not in p.parts]
    code = [''.join(c['source']) for b in books for c in b['cells'] if c['cell_type'] == 'code']
    texts = [*code, *(p.read_text(encoding='utf-8') for p in modules.values())]
    lines = [line for text in texts for line in text.splitlines() if line.strip()]
    assert sorted(map(len, lines))[int(.9 * len(lines))] <= 95


def test_library_is_small():
    "What only its own module and chapter use is not listed in `__all__`."
    lists = [re.search(r'^__all__ = (\[.*?\])', p.read_text(encoding='utf-8'), re.S | re.M) for p in modules.values()]
    assert sum(len(ast.literal_eval(found[1])) for found in lists if found) < 300
