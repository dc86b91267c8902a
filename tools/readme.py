"""Makes README.md from nbs/index.ipynb without Quarto: `python tools/readme.py`, or for PyPI, where
relative links lead nowhere, `python tools/readme.py --links https://github.com/OWNER/REPO/blob/TAG`."""
import argparse
import json
import posixpath
import re
from pathlib import Path

root = Path(__file__).resolve().parent.parent
install_cell = "find_spec('colorgan') is None"


def source(x): return x if isinstance(x, str) else ''.join(x)


def printed(output):
    """The text of an output; tables and pictures stay in the notebook, where the prose does
    not point to a file."""
    data = output.get('data', {})
    if output.get('name') == 'stderr': return ''
    return ('' if {'text/html', 'image/png', 'image/jpeg'} & data.keys()
            else source(output.get('text') or data.get('text/plain', '')))


def block(cell):
    "One cell of the notebook as markdown; the cell that installs the library is left out."
    text = source(cell['source']).strip()
    if cell['cell_type'] == 'markdown': return text
    if install_cell in text or text.startswith('#| hide'): return ''
    outputs = '\n'.join(filter(None, (printed(o).rstrip() for o in cell['outputs'])))
    return f'```python\n{text}\n```' + (f'\n\n```\n{outputs}\n```' if outputs else '')


def relink(text, links=''):
    """Links that hold from nbs/ turned into links that hold from the top, or into addresses
    that start with `links`."""
    def to_top(match):
        path = posixpath.normpath(posixpath.join('nbs', match[2]))
        suffix = '?raw=true' if links and path.endswith(('.png', '.jpg', '.gif')) else ''
        return match[1] + (f'{links}/{path}' if links else path) + suffix
    return re.sub(r'(\]\(|src=")(?!https?:|#|mailto:)([^)"\s]+)', to_top, text)


def readme(links=''):
    cells = json.loads((root/'nbs'/'index.ipynb').read_text(encoding='utf-8'))['cells']
    return relink('\n\n'.join(filter(None, map(block, cells))), links) + '\n'


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--links', default='', help='what relative links start with')
    (root/'README.md').write_text(readme(parser.parse_args().links), encoding='utf-8')
