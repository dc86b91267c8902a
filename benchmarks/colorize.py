"""The plain way of colorizing photos against ours, in one run: `python benchmarks/colorize.py --json FILE`."""
import argparse
import json, os, re, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np
from PIL import Image
from colorgan.use.album import colorize_files
from colorgan.colour.chroma import small_shape
from colorgan.colorizer import Colorizer, TorchNet
from colorgan.core import ColorganError, busy, cores, write_json
from colorgan.photos.sources import bundled_photos
from colorgan.nets.weights import find_weights

class Plain:
    "Colorizes photo after photo, each as a whole"
    def __init__(self, weights='light', size=256):
        self.colorizer = Colorizer(TorchNet(find_weights(weights), 'cpu'), size)
    def paint(self, photo):
        import torch.nn.functional as F
        from skimage.color import lab2rgb, rgb2lab
        from torch import from_numpy
        lab = rgb2lab(np.asarray(photo.convert('RGB')))
        shape = small_shape(*lab.shape[:2], self.colorizer.size)
        L = F.interpolate(from_numpy(lab[None, None, ..., 0]).float(), shape, mode='bilinear',
                          antialias=True, align_corners=False)
        ab, = self.colorizer.chroma([L[0, 0].numpy()])
        ab = F.interpolate(from_numpy(ab)[None], lab.shape[:2], mode='bicubic',
                           align_corners=False)[0].permute(1, 2, 0).numpy()
        return Image.fromarray((lab2rgb(np.dstack([lab[..., :1], ab])) * 255).round().astype(np.uint8))
    def __call__(self, files, out):
        for f in files: self.paint(Image.open(f)).save(Path(out)/f.name, quality=95, subsampling=0)

class Ours:
    "Colorizes files with `colorize_files`"
    def __init__(self, weights='light', size=256): self.colorizer = Colorizer(weights, size)
    def __call__(self, files, out):
        report = colorize_files(files, out, self.colorizer, overwrite=True, progress=False)
        if report.failed: raise ColorganError(report.failed[0])

def grainy_photos(folder, n, size, seed=0):
    "Write `n` JPEGs of `size` (width, height) into `folder`; their paths"
    rng, sources, paths = np.random.default_rng(seed), bundled_photos(), []
    for i in range(n):
        im = np.asarray(Image.open(sources[i % len(sources)]).convert('RGB').resize(size, Image.BICUBIC), np.float32)
        grain = rng.standard_normal((size[1] // 2 + 1, size[0] // 2 + 1, 1),
                                    np.float32).repeat(2, 0).repeat(2, 1)[:size[1],
                                    :size[0]] * 5
        paths.append(Path(folder)/f'{i:03}.jpg')
        Image.fromarray((im + grain).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths

def peak_memory() -> int: # megabytes
    """The most memory that this process has had since it began to run its program; Linux
    tells. Elsewhere, what `getrusage` says, which may be its parent's"""
    status = Path('/proc/self/status')
    if status.exists(): return int(re.search(r'VmHWM:\s+(\d+)', status.read_text())[1]) // 1024
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20
                                                                  if sys.platform == 'darwin'
                                                                  else 2**10)

def race(way, files, out, weights='light', size=256):
    "What a racer's process does: `way` is 'Plain' or 'Ours'"
    paint, files = globals()[way](weights, size), [Path(f) for f in files]
    with tempfile.TemporaryDirectory() as warm: paint(grainy_photos(warm, 1, (341, 256)), out)
    print('ready', flush=True)
    sys.stdin.readline()
    paint(files, out)
    print(peak_memory())

def timed(way: str, # 'Plain' or 'Ours'
          files: list, # photos
          processes=1, # among which they are divided
          weights='light', size=256,
         ) -> tuple: # seconds, and megabytes of all processes together at their peaks
    "How long a way takes for `files`, warm"
    env = (os.environ | {k: str(max(1, cores() // processes))
                         for k in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')})
    with tempfile.TemporaryDirectory() as out:
        words = [json.dumps([way, [str(f) for f in files[i::processes]], out, str(weights),
                             size]) for i in range(processes)]
        racers = [subprocess.Popen([sys.executable, __file__, '--race', w],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env=env) for w in words]
        for r in racers:
            if r.stdout.readline() != 'ready\n': raise ColorganError(f'{way} did not get ready')
        start = time.perf_counter()
        for r in racers:
            r.stdin.write('go\n')
            r.stdin.flush()
        said = [r.communicate()[0] for r in racers]
        seconds = time.perf_counter() - start
    if any(r.returncode for r in racers): raise ColorganError(f'{way} did not arrive')
    return seconds, sum(map(int, said))

def lifetime(*words) -> float: # seconds
    "How long a Python lives that is given `words`"
    start = time.perf_counter()
    subprocess.run([sys.executable, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start

def cold_start(photo, weights='light', size=256):
    "Seconds of `import torch`, and of the command line from its start to a photo written"
    command = 'import sys; from colorgan.cli import main; sys.exit(main())'
    with tempfile.TemporaryDirectory() as out:
        words = '-c', command, 'colorize', photo, '--out', Path(out)/'out.jpg', '--weights', weights, '--size', size
        return lifetime('-c', 'import torch'), lifetime(*words)

def _best(rounds, *ways):
    "The fastest of several rounds of each way, in turns: `(seconds, megabytes)` of each"
    return [min(times) for times in zip(*([way() for way in ways] for _ in range(rounds)))]

def bench_colorize(json_file=None, # where to write the figures
                   weights='light', size=256, # what both ways use
                   large=(4000, 3000), # the large photo's width and height
                   many=(1024, 768), n=100, # the folder's photos
                   rounds=2, # the best of each way's counts
                   say=print, # told the figures
                  ) -> dict: # ratios, and seconds and megabytes of both ways
    "The plain way of colorizing photos against ours, on the same photos in one run"
    load = busy()
    both = lambda files, n_plain: [lambda: timed('Plain', files, n_plain, weights, size),
                                   lambda: timed('Ours', files, 1, weights, size)]
    with tempfile.TemporaryDirectory() as tmp:
        for name in ('small', 'large', 'many'): (Path(tmp)/name).mkdir()
        small, = grainy_photos(Path(tmp)/'small', 1, (512, 512))
        cold = [min(t) for t in zip(*(cold_start(small, weights, size) for _ in range(rounds)))]
        one = _best(rounds, *both(grainy_photos(Path(tmp)/'large', 1, large), 1))
        folder = _best(rounds, *both(grainy_photos(Path(tmp)/'many', n, many), cores()))
    figures = dict(cold_start_s=dict(import_torch=cold[0], ours=cold[1]), mp12=_sides(one),
                   folder=_sides(folder))
    ratios = dict(cold_start_s_ratio=cold[1] / cold[0], mp12_ratio=one[0][0] / one[1][0],
                  folder_ratio=folder[0][0] / folder[1][0])
    for name, r in ratios.items(): say(f'{name}: {r:.2f}')
    facts = (dict(weights=str(weights), size=size, large=large, many=many, n=n, cores=cores(),
                  load=load) | {k: round(r, 2) for k, r in ratios.items()} | _rounded(figures))
    if json_file is not None: write_json(json_file, facts)
    return facts

def _sides(pair):
    return {name: dict(seconds=s, peak_mb=mb)
            for name, (s, mb) in zip(('plain', 'ours'), pair)}
def _rounded(d):
    return {k: _rounded(v) if isinstance(v, dict) else round(v, 2) for k, v in d.items()}


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', metavar='FILE', help='where to write the measurements')
    parser.add_argument('--race', metavar='JSON', help='what a process that is measured does')
    args = parser.parse_args()
    try: race(*json.loads(args.race)) if args.race else bench_colorize(args.json)
    except ColorganError as e: sys.exit(f'colorize.py: {e}')
