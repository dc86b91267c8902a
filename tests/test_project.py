"""The project holds together: notebooks, modules, README, metadata and wheel say the same."""
import ast
import configparser
import json
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
import yaml

pytest.importorskip('nbdev',
                    reason='these checks are for the development environment, not for Colab')

root = Path(__file__).resolve().parent.parent
scripts = Path(sys.executable).parent
notebooks = [p for p in sorted(root.glob('nbs/**/*.ipynb')) if '.ipynb_checkpoints' not in p.parts]
badge = 'https://colab.research.google.com/github/{user}/{repo}/blob/{branch}/{path}'
plain_kernel = {'kernelspec': {'display_name': 'python3', 'language': 'python', 'name': 'python3'}}
install = """import importlib.util, subprocess, sys
if importlib.util.find_spec('colorgan') is None:
    pip = [sys.executable, '-m', 'pip', 'install', '-q']
    if subprocess.run([*pip, 'colorgan']).returncode:
        subprocess.run([*pip, 'git+https://github.com/colorgan/colorgan'], check=True)"""


def sh(*command, cwd=root):
    "Runs `command` and returns what it printed; its output is the message if it fails."
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        pytest.fail(f'{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}', pytrace=False)
    return done.stdout


def committed():
    "The files that git holds or would add, as a clone has them."
    names = sh('git', '-c', 'safe.directory=*', 'ls-files', '--cached', '--others',
               '--exclude-standard').splitlines()
    return [name for name in names if (root/name).is_file()]


def contents(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes()
            for p in folder.rglob('*') if p.is_file()}


def changed(folder, before):
    "Names of the files under `folder` that came, went or differ from `before`."
    after = {k: v for k, v in contents(folder).items() if '__pycache__' not in k}
    return sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))


@pytest.fixture
def clone(tmp_path):
    for name in committed():
        (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/name, tmp_path/name)
    return tmp_path


@pytest.fixture(scope='module')
def config():
    from nbdev.config import get_config
    return get_config(root)


def test_modules_are_what_the_notebooks_export(clone):
    before = contents(clone)
    for module in clone.glob('colorgan/**/*.py'):
        if not module.name.startswith('__'): module.unlink()
    sh(scripts/'nbdev-export', cwd=clone)
    assert changed(clone, before) == [], 'run nbdev-export and commit what it changes'


def test_notebooks_are_clean(clone):
    before = contents(clone)
    sh(scripts/'nbdev-clean', cwd=clone)
    assert changed(clone, before) == [], 'run nbdev-clean and commit what it changes'


def test_readme_is_the_index(clone):
    before = contents(clone)
    sh(sys.executable, 'tools/readme.py', cwd=clone)
    assert changed(clone, before) == [], 'run python tools/readme.py and commit what it changes'


def listed():
    return [*sorted(root.glob('nbs/[01][0-9]_*.ipynb'))[:12],
            *sorted(root.glob('nbs/course/[0-9]_*.ipynb'))]


@pytest.mark.parametrize('notebook', listed(), ids=lambda p: p.stem)
def test_readme_lists_the_thread_and_the_course(notebook, config):
    cells = json.loads(notebook.read_text(encoding='utf-8'))['cells']
    title = ''.join(cells[0]['source']).splitlines()[0].removeprefix('# ')
    path = notebook.relative_to(root).as_posix()
    row = f'| [{title}]({path}) |', badge.format(path=path, **config.d)
    lines = (root/'README.md').read_text(encoding='utf-8').splitlines()
    assert any(all(part in line for part in row)
               for line in lines), f'no row for {path} with its title, {title!r}'


def test_readme_is_short(): assert (root/'README.md').stat().st_size <= 10_000


docs = ('from nbdev import quarto, serve; quarto.refresh_quarto_yml(); '
        'quarto.nbdev_sidebar.__wrapped__(); serve.proc_nbs(n_workers=2)')


@pytest.mark.slow
def test_notebooks_can_become_pages(clone):
    "What nbdev-docs does before it hands over to Quarto, which this does not need."
    sh(sys.executable, '-c', docs, cwd=clone)


pages = [p for p in [*root.glob('*.md'), *root.glob('teacher/**/*'),
                     *root.glob('nbs/**/*.ipynb'), *root.glob('colorgan/weights/*/README.md')]
         if p.suffix in ('.md', '.ipynb') and '.ipynb_checkpoints' not in p.parts]
here = re.compile(r'https://(?:(?:colab\.research\.google\.com/)?github(?:\.com)?/colorgan/colorgan/blob/main|raw\.githubusercontent\.com/colorgan/colorgan/main)/')


def prose(page):
    """The Markdown of a page, without code; and what an address may name in it: headings, and
    the cells of a notebook"""
    text, names = page.read_text(encoding='utf-8'), set()
    if page.suffix == '.ipynb':
        cells = json.loads(text)['cells']
        text, names = '\n\n'.join(''.join(c['source'])
                                  for c in cells
                                  if c['cell_type'] == 'markdown'), {f"scrollTo={c['id']}"
                                  for c in cells}
    text = re.sub(r'`[^`\n]*`', lambda m: m[0].replace('](', '] ('),
                  re.sub(r'^```.*?^```', '', text, flags=re.S | re.M))
    return (text,
            names | {re.sub(r'\W', '', h.lower())
                     for h in re.findall(r'^#+ +(.+)$', text, re.M)})


def leads_nowhere(page, link):
    "Whether a link of `page` to something in this project does not find it."
    path, _, name = here.sub('', link).partition('#')
    target = (root if here.match(link) else page.parent)/path if path else page
    if not target.exists(): return True
    return (bool(name) and target.suffix in ('.md', '.ipynb')
            and not {name, re.sub(r'\W', '', name.lower())} & prose(target)[1])


@pytest.mark.parametrize('page', pages, ids=lambda p: p.relative_to(root).as_posix())
def test_links_and_pictures(page):
    text, _ = prose(page)
    links = re.findall(r'(?:\]\(|src=")([^)"\s]+)', text)
    ours = [x for x in links if here.match(x) or not re.match('https?:|mailto:|data:', x)]
    assert [x for x in ours if leads_nowhere(page, x)] == [], 'these lead nowhere'
    pictures = (re.findall(r'!\[([^\]]*)\]\(([^)\s]+)',
                           text) + [(m[0], m[1])
                           for m in re.findall(r'<img(?=[^>]*?alt="([^"]*)")?[^>]*src="([^"]*)"', text)])
    assert [x for alt, x in pictures
            if len(alt.split()) < 2] == [], 'these pictures need words that say what they show'


def test_sidebar_has_every_notebook():
    listed = re.findall(r'^ +- (.+\.ipynb)$',
                        (root/'nbs'/'sidebar.yml').read_text(encoding='utf-8'), re.M)
    assert sorted(listed) == sorted(p.relative_to(root/'nbs').as_posix() for p in notebooks)


def mixes_imports(source):
    """Whether a cell imports and does other things, too: nbdev-docs runs each cell with an
    import, and no other before it."""
    body = ast.parse(source).body
    imports = [n for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
    return (bool(imports)
            and not all(isinstance(n,
                                   ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef) for n in body))


@pytest.mark.parametrize('notebook', notebooks, ids=lambda p: p.stem)
def test_notebook_is_fit_to_commit(notebook, config):
    book = json.loads(notebook.read_text(encoding='utf-8'))
    cells = [(i, c['cell_type'], ''.join(c['source']), c.get('outputs', []))
             for i, c in enumerate(book['cells'])]
    code = [(i, source) for i, kind, source, _ in cells if kind == 'code'
            and not source.startswith('#| default_exp')]
    outputs = [(i, o) for i, _, _, outs in cells for o in outs]
    printed = [(i, str(o.get('text', o.get('data', {}).get('text/plain')))) for i, o in outputs]
    address = badge.format(path=notebook.relative_to(root).as_posix(), **config.d)
    wrong = {
        'larger than 1.5 MB': notebook.stat().st_size > 1.5e6,
        'metadata beyond the plain kernel': book['metadata'] != plain_kernel,
        'no Colab badge': not any(address in source for _, _, source, _ in cells),
        'the first code cell does not install colorgan': code[0][1] != install,
        'cells that fail': [i for i, o in outputs if o['output_type'] == 'error'],
        'cells that print a path of this machine': [i for i, text in printed
                                                    if re.search(f'{root}|/home/|/root/|/Users/|/tmp/', text)],
        'cells where imports do not stand alone': [i for i, source in code[1:]
                                                   if '#| export' not in source
                                                   and mixes_imports(source)]}
    found = '; '.join(k if v is True else f'{k}: {v}' for k, v in wrong.items() if v)
    if found: pytest.fail(f'{notebook.name}: {found}', pytrace=False)


def test_repository_is_small():
    sizes = {name: (root/name).stat().st_size
             for name in committed() if not name.startswith('colorgan/weights/')}
    assert sum(sizes.values()) < 20e6, sorted(sizes, key=sizes.get)[-5:]


def test_settings_ini_mirrors_nbdev(config):
    settings = configparser.ConfigParser()
    settings.read(root/'settings.ini', encoding='utf-8')
    paths = dict(lib_path=config.lib_path, nbs_path=config.nbs_path, doc_path=config.doc_path)
    expected = config.d | {k: p.relative_to(root).as_posix() for k, p in paths.items()}
    mirror = dict(settings['DEFAULT'])
    assert mirror == {k: str(expected.get(k)) for k in mirror}
    assert mirror.keys() >= {'lib_name', 'nbs_path', 'lib_path', 'doc_path', 'user', 'repo',
                             'branch', 'min_python'}


def test_citation_and_llms_are_true(config):
    cited = yaml.safe_load((root/'CITATION.cff').read_text(encoding='utf-8'))
    project = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))['project']
    assert (cited['version'], cited['license']) == (config.version, project['license'])
    assert [a['name'] for a in cited['authors']] == [a['name'] for a in project['authors']]
    assert (cited['repository-code'], cited['url']) == (project['urls']['Repository'], project['urls']['Documentation'])
    text = (root/'llms.txt').read_text(encoding='utf-8')
    links = re.findall(r'\]\((\S+)\)', text)
    assert links and [x for x in links if not here.match(x) or not (root/here.sub('', x)).exists()] == []
    readme = (root/'README.md').read_text(encoding='utf-8')
    assert [c for c in re.findall('pip install [^`\n]*', text) if c not in readme] == []


def test_python_versions_are_those_that_are_tried():
    project = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))['project']
    named = {c.rpartition(' ')[2] for c in project['classifiers'] if re.search(r':: 3\.\d+$', c)}
    jobs = yaml.safe_load((root/'.github'/'workflows'/'systems.yml').read_text(encoding='utf-8'))['jobs']
    assert {v for job in jobs.values() for v in job['strategy']['matrix']['python']} == named


def test_setup_py_is_one_line():
    assert (root/'setup.py').read_text(encoding='utf-8') == 'from setuptools import setup; setup()\n'


def test_dependencies_accept_what_colab_preinstalls():
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    lines = (root/'.github'/'colab-constraints.txt').read_text(encoding='utf-8').splitlines()
    colab = {canonicalize_name(n): v
             for n, v in (line.split('==') for line in lines if '==' in line)}
    project = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))['project']
    refused = []
    for name in project['dependencies']:
        wanted = Requirement(name)
        if not wanted.specifier.contains(colab[canonicalize_name(wanted.name)]):
            refused.append(name)
    assert refused == []


def test_actions_are_pinned():
    uses = [line for p in root.glob('.github/**/*.yml')
            for line in re.findall(r'uses: (.+)', p.read_text(encoding='utf-8'))]
    assert uses and [u for u in uses
                     if not re.fullmatch(r'\./\S+|[\w./-]+@[0-9a-f]{40} # v[\d.]+', u)] == []


workflows = sorted((root/'.github'/'workflows').glob('*.yml'))


@pytest.mark.parametrize('path', workflows, ids=lambda p: p.stem)
def test_workflow(path):
    """It parses; jobs end, and may write no more than they must; what they run is there; pip is
    never offered a second index beside PyPI."""
    text = path.read_text(encoding='utf-8')
    workflow = yaml.safe_load(text)
    assert {'name', True, 'permissions', 'jobs'} <= workflow.keys() # YAML reads `on` as True
    assert set(workflow['permissions'].values()) <= {'read'} and 'extra-index' not in text.lower().replace('_', '-')
    for job in workflow['jobs'].values():
        if 'uses' in job: continue
        systems = job.get('strategy', {}).get('matrix', {}).get('system', ['ubuntu-latest'])
        assert job['runs-on'] in ('ubuntu-latest', '${{ matrix.system }}')
        assert job['timeout-minutes'] <= 90 and set(systems) <= {f'{s}-latest' for s in ('ubuntu', 'windows', 'macos')}
        for step in job['steps']:
            assert ('uses' in step) != ('run' in step)
            if step.get('uses', '').startswith('actions/checkout'): assert step['with']['persist-credentials'] is False
            named = re.findall(r'(?<![\w/])(?:\.github|\.ci|tools|tests)/[\w./-]+', step.get('run', ''))
            for file in named: assert (root/file).exists(), file


def test_what_is_published_is_built_by_pinned_tools():
    jobs = yaml.safe_load((root/'.github'/'workflows'/'release.yml').read_text(encoding='utf-8'))['jobs']
    runs = '\n'.join(step.get('run', '') for step in jobs['build']['steps'])
    assert re.findall('pip install .*', runs) == [
        'pip install --require-hashes --no-deps --only-binary=":all:" '
        '-r .github/requirements/build.txt']
    assert '-m build --no-isolation' in runs
    uses = [step['uses'].partition('@')[0] for step in jobs['publish']['steps']]
    assert uses[-3:] == ['actions/attest-build-provenance', 'actions/attest',
                         'pypa/gh-action-pypi-publish']
    assert not any('run' in s for s in jobs['publish']['steps'])
    assert {'test', 'build', 'describe'} <= set(jobs['publish']['needs'])
    assert [name for name, job in jobs.items() if 'write' in job.get('permissions', {}).values()] == ['publish']


@pytest.mark.parametrize('path', sorted((root/'.github'/'requirements').glob('*.in')), ids=lambda p: p.stem)
def test_tools_are_pinned_by_hash(path):
    from packaging.requirements import Requirement
    text = re.sub(r'(?m)^\s*#.*\n?', '', path.with_suffix('.txt').read_text(encoding='utf-8'))
    entries = re.sub(r'\s*\\\n\s*', ' ', text).split('\n')
    pinned = {}
    for entry in filter(None, map(str.strip, entries)):
        name, version, hashes = re.fullmatch(r'([\w.-]+)==(\S+)((?: --hash=sha256:[0-9a-f]{64})+)', entry).groups()
        pinned[name] = version
    for wanted in map(Requirement, path.read_text(encoding='utf-8').split()):
        assert wanted.specifier.contains(pinned[wanted.name])


def test_ruff(): sh(sys.executable, '-m', 'ruff', 'check', '--no-cache', '.')


imports = """
import importlib, pkgutil, sys, colorgan
assert colorgan.__file__.startswith(sys.prefix), colorgan.__file__
for name in ('core', 'colour.lab', 'recipes', 'colorizer', 'cli'): importlib.import_module(f'colorgan.{name}')
assert not {'torch', 'fastai', 'matplotlib'} & sys.modules.keys(), 'the command line imports more than it needs'
for module in pkgutil.walk_packages(colorgan.__path__, 'colorgan.'): importlib.import_module(module.name)
print(colorgan.__version__)
"""


def test_wheel_in_a_clean_environment(clone, tmp_path_factory, config):
    """The wheel, made from the source archive, is imported where colorgan is not; what it
    depends on is lent by this environment."""
    sh(sys.executable, '-m', 'build', '--no-isolation', '--outdir', 'dist', cwd=clone)
    wheel, = (clone/'dist').glob('*.whl')
    away = tmp_path_factory.mktemp('away')
    venv.create(away/'env', with_pip=False)
    python = away/'env'/'bin'/'python'
    sh(sys.executable, '-m', 'pip', '--python', python, 'install', '--quiet', '--no-deps',
       '--no-index', wheel)
    site = Path(sh(python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
    (site/'lent.pth').write_text(sysconfig.get_path('purelib'))
    assert sh(python, '-c', imports, cwd=away).split()[-1] == config.version
    assert 'colorize' in sh(away/'env'/'bin'/'colorgan', '--help', cwd=away)
    data = {name for name in committed() if name.startswith('colorgan/')
            and not name.endswith('.py')}
    assert data <= {p.relative_to(site).as_posix() for p in site.glob('colorgan/**/*')}


def test_constraint_from_colabs_list():
    constraint = runpy.run_path(root/'tools'/'colab.py')['constraint']
    assert constraint('numpy==2.1.3') == 'numpy==2.1.3'
    assert constraint('torch==2.11.0+cu128') == 'torch==2.11.0'
    wheel = 'https://example.org/cu128/torch-2.11.0%2Bcu128-cp313-cp313-linux_x86_64.whl#sha256=0'
    assert constraint(f'torch @ {wheel}') == 'torch==2.11.0'
    assert constraint('google-colab @ file:///colabtools/dist/google_colab-1.0.0.tar.gz') == ''
    assert constraint('# a comment') == ''
