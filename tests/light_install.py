"""Colorizes where nothing but numpy, Pillow and onnxruntime is installed: python tests/light_install.py"""
import io
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

import colorgan


def run(*words, **kw):
    command = [sys.executable, '-m', 'colorgan', *map(str, words)]
    return subprocess.run(command, capture_output=True, **kw)


def main():
    "Raises `AssertionError` where something does not hold"
    folder = Path(tempfile.mkdtemp())/'Fotos aus Köln'
    (folder/'1950').mkdir(parents=True)
    grey = Image.radial_gradient('L').resize((96, 64))
    grey.save(folder/'großmutter.jpg')
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder/'1950'/'scan.png')
    done = run('colorize', folder, '--out', folder.parent/'in Farbe')
    assert done.returncode == 0, done.stderr.decode('utf-8', 'replace')
    out = Image.open(folder.parent/'in Farbe'/'großmutter.jpg')
    assert out.size == grey.size and b'algorithmicallyEnhanced' in out.info['xmp'] and np.asarray(out).std(-1).max() > 2
    assert (folder.parent/'in Farbe'/'1950'/'scan.png').read_bytes()[24] == 16 # bits
    piped = run('colorize', '-', '--out', '-', '--format', 'png', input=(folder/'großmutter.jpg').read_bytes())
    assert piped.returncode == 0 and Image.open(io.BytesIO(piped.stdout)).size == grey.size, piped.stderr
    wrong = run('colorize', folder/'nichts.jpg', '--out', folder/'x.png')
    assert wrong.returncode == 2 and wrong.stderr.count(b'\n') == 1, wrong.stderr
    assert run('--help').returncode == 0
    torch = ', with torch' if find_spec('torch') else ', without torch'
    print(f'colorgan {colorgan.__version__} on Python {sys.version.split()[0]}, {sys.platform}{torch}: it colorizes.')


if __name__ == '__main__': main()
