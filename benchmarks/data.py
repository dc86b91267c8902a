"""The tutorial's way of loading photos against ours, on the same photos in one run:
`python benchmarks/data.py --json FILE`."""
import argparse
import sys, tempfile, time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
import numpy as np, torch
from PIL import Image
from skimage.color import rgb2lab
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from colorgan.photos.cache import make_cache
from colorgan.color import get_space
from colorgan.photos.crops import crop_box, encode_bytes
from colorgan.data import CachedPhotos, PhotoDL, Photos, ToSpace
from colorgan.core import ColorganError, busy, cores, write_json
from colorgan.photos.files import open_photo
from colorgan.photos.sources import photo_files

class TutorialData(Dataset):
    "Photos as the tutorial loads them"
    def __init__(self, refs, size):
        self.refs, self.tensor = refs, T.ToTensor()
        self.resize = T.Compose([T.Resize((size, size), T.InterpolationMode.BICUBIC),
                                 T.RandomHorizontalFlip()])
    def __len__(self): return len(self.refs)
    def __getitem__(self, i):
        im = self.refs[i].image() if hasattr(self.refs[i], 'image') else Image.open(self.refs[i])
        lab = self.tensor(rgb2lab(np.array(self.resize(im.convert('RGB')))).astype('float32'))
        return {'L': lab[[0]] / 50 - 1, 'ab': lab[[1, 2]] / 110}

def cut_photos(folder, n, size, seed=0):
    "Writes `n` JPEGs of `size` pixels into `folder`, cut from the bundled photos"
    photos, dice = [open_photo(p)
                    for p in photo_files('bundled')], np.random.default_rng(seed).random((n, 5))
    for i, u in enumerate(dice):
        im = photos[i % len(photos)]
        x, y, w, h = crop_box(*im.size, u)
        im.resize((size, size), Image.BICUBIC,
                  (x, y, x + w, y + h)).save(Path(folder)/f'{i:05}.jpg', quality=90)

def rate(batches, # function without arguments that returns an iterable of batches
         n, # photos in a pass
         seconds=3., # at least this long, and at least two passes
        ) -> float: # photos per second
    "How fast the batches come, in the fastest of several passes"
    if n < 1: raise ColorganError('there are fewer photos than a batch has: take more')
    best, until = 0., None
    while until is None or time.perf_counter() < until or best == 0:
        began = time.perf_counter()
        for _ in batches(): pass
        now = time.perf_counter()
        if until is not None: best = max(best, n / (now - began))
        until = until or now + seconds
    return best

@contextmanager
def threads(n):
    "torch uses `n` threads within"
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try: yield
    finally: torch.set_num_threads(before)

def _bytes(photos, bs, n):
    "Passes of bytes by `n` workers: processes for files, threads for a cache"
    if isinstance(photos, Photos):
        return lambda: PhotoDL(photos, bs=bs, shuffle=True, drop_last=True,
                               num_workers=n if n > 1 else 0)
    parts = [list(range(i, i + bs)) for i in range(0, len(photos) - bs + 1, bs)]
    read = lambda idxs: photos.read(idxs, 0)
    return (lambda: map(read, parts) if n == 1
            else (b for pool in [ThreadPoolExecutor(n)] for b in pool.map(read, parts)))

def _lab(photos, bs, n, device='cpu'):
    "Passes of finished batches on a device"
    dl = PhotoDL(photos, bs=bs, shuffle=True, drop_last=True,
                 num_workers=n if n > 1 and isinstance(photos, Photos) else 0,
                 device=torch.device(device), after_batch=[ToSpace(photos, get_space('lab'))],
                 pin_memory=device == 'cuda')
    return lambda: dl

def _ways(refs, cache, size, bs):
    "Every way by name: a function of the number of processes that returns what makes a pass"
    files, cached = Photos(refs, size, True, 0), CachedPhotos(photo_files(cache), size, True,
                                                              0, torch.device('cpu'))
    tutorial = lambda n: lambda: DataLoader(TutorialData(refs, size), batch_size=bs,
                                            shuffle=True, drop_last=True,
                                            num_workers=n if n > 1 else 0)
    return {'tutorial': tutorial, 'uncached_bytes': lambda n: _bytes(files, bs, n),
            'uncached_lab': lambda n: _lab(files, bs, n),
            'cached_bytes': lambda n: _bytes(cached, bs, n),
            'cached_lab': lambda n: _lab(cached, bs, n)}

def _gpu_rate(cache, size, seconds, bs=64):
    "Finished batches per second on the GPU, when all of them are done"
    photos = CachedPhotos(photo_files(cache), size, True, 0, torch.device('cuda'))
    bs = min(bs, len(photos))
    def batches():
        yield from _lab(photos, bs, 1, 'cuda')()
        torch.cuda.synchronize()
    return rate(batches, len(photos) // bs * bs, seconds)

def _rounds(ways, n, seconds, rounds, say):
    """Photos per second of each way with one process and with all cores: the best of several
    rounds in which they take turns"""
    rates = {name: {'one': 0., 'all': 0.} for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            for label, workers in ('one', 1), ('all', cores()):
                with threads(workers): r = rate(way(workers), n, seconds / rounds)
                rates[name][label] = max(rates[name][label], round(r, 1))
    for name, r in rates.items():
        say(f"{name}: {r['one']:,.0f} photos/s with one process, {r['all']:,.0f} with all "
            "cores")
    return rates

def _steps(refs, cache, size, bs, seconds):
    "Milliseconds that each step of ours takes for a photo, on one core and on all"
    files, cached, idxs = Photos(refs, size, True, 0), CachedPhotos(photo_files(cache), size,
                                                                    True, 0,
                                                                    torch.device('cpu')), list(range(bs))
    windows = cached.read(idxs, 0)
    rgb = cached.finish(*windows)
    steps = {'decode and cut': lambda: files.read(idxs, 0),
             'read from the cache': lambda: cached.read(idxs, 0),
             'crop': lambda: cached.finish(*windows),
             'to Lab': lambda: encode_bytes(get_space('lab'), rgb)}
    ms = {name: {} for name in steps}
    for label, n in ('one', 1), ('all', cores()):
        with threads(n):
            for name, f in steps.items():
                ms[name][label] = round(1e3 / rate(lambda f=f: (f() for _ in range(8)), 8 * bs,
                                                   seconds), 3)
    return ms

def bench_data(data=None, # photos, as `photo_files` takes them; bundled ones cut to JPEGs if `None`
               json_file=None, # where to write the figures
               n=1024, # how many photos: enough that starting worker processes does not count
               size=256, bs=16,
               seconds=3., # how long each way is measured, at least
               rounds=2, # in so many rounds
               say=print, # told the figures
              ) -> dict: # photos per second of each way with one process and with all cores, and the ratios of the best
    "The tutorial's way of loading photos against ours, on the same photos in one run"
    load = busy()
    with tempfile.TemporaryDirectory() as tmp:
        if data is None: cut_photos(tmp, n, size)
        refs = photo_files(data or tmp)
        refs = [refs[i] for i in np.random.default_rng(0).permutation(len(refs))[:n]]
        cache = make_cache(refs, Path(tmp)/'bench.cache', size, say=lambda text: None)
        rates = _rounds(_ways(refs, cache, size, bs), len(refs) // bs * bs, seconds, rounds, say)
        steps = _steps(refs, cache, size, bs, seconds / rounds)
        gpu = ({'gpu_lab_photos_per_s': round(_gpu_rate(cache, size, seconds))}
               if torch.cuda.is_available() else {})
    best = {k: max(v.values()) for k, v in rates.items()}
    ratios = {f'{k}_ratio': round(best[k] / best['tutorial'], 2) for k in best if k != 'tutorial'}
    facts = (dict(photos=len(refs), size=size, bs=bs, cores=cores(), load=load,
                  torch=torch.__version__) | ratios | gpu | {'photos_per_s': rates,
                  'ms_per_photo': steps})
    if json_file is not None: write_json(json_file, facts)
    return facts


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', metavar='FILE', help='where to write the measurements')
    parser.add_argument('data', nargs='?',
                        help='photos to measure with; without any, bundled ones are cut into '
                             'JPEGs')
    args = parser.parse_args()
    try: bench_data(args.data, args.json)
    except ColorganError as e: sys.exit(f'data.py: {e}')
