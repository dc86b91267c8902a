"""Colab's `pip freeze` as a pip constraints file:
`python tools/colab.py pip-freeze.txt > .github/colab-constraints.txt`."""
import re
import sys
from pathlib import Path
from urllib.parse import unquote


def constraint(line):
    """`name==version`, also from a wheel's address and without a local version; empty where
    pip could not find the package."""
    name, at, address = line.strip().partition(' @ ')
    if at:
        wheel = re.search(r'/[^/-]+-([^/-]+)-[^/]+\.whl', unquote(address))
        line = f'{name}=={wheel[1]}' if wheel else ''
    found = re.match(r'[\w.-]+==[^+\s]+', line)
    return found[0] if found else ''


if __name__ == '__main__':
    lines = Path(sys.argv[1]).read_text(encoding='utf-8').splitlines()
    print('\n'.join(['# Versions that Colab preinstalls; a pip constraints file.',
                     *filter(None, map(constraint, lines))]))
