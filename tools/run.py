"""Runs notebooks in a Jupyter kernel and keeps their outputs: `python tools/run.py nbs/00_color.ipynb ...`"""
import os
import re
import sys
from pathlib import Path

import nbclient
import nbformat


def execute(path, flags=()):
    """The notebook with new outputs; cells flagged `slow` or `cuda`, if that is not in
    `flags`, keep those they have."""
    book = nbformat.read(path, as_version=4)
    left_out = {'slow', 'cuda'} - set(flags)
    for cell in book.cells:
        if left_out & set(re.findall(r'^#\| *(\w+)', cell.source, re.M)):
            cell.metadata['tags'] = ['skip-execution']
    nbclient.NotebookClient(book, timeout=600, kernel_name='python3',
                            resources={'metadata': {'path': path.parent}}).execute()
    return book


def noise(output):
    "Progress that overwrites itself, and what libraries log"
    return output.get('name') == 'stderr' and re.match(r'\r|[IWE]\d{4} |Detected out of order', output.text)


def plain(book):
    "Without what tells of this run only; `nbdev-clean` does the rest."
    book.metadata = {'kernelspec': {'display_name': 'python3', 'language': 'python',
                                    'name': 'python3'}}
    for cell in book.cells:
        cell.metadata.pop('tags', None)
        if 'outputs' in cell: cell.outputs = [o for o in cell.outputs if not noise(o)]
    return book


if __name__ == '__main__':
    os.environ['PYTHONWARNINGS'] = 'ignore'
    for name in sys.argv[1:]:
        text = nbformat.writes(plain(execute(Path(name))))
        Path(name).write_text(text.rstrip('\n') + '\n', encoding='utf-8')
