"""The plain way of judging colorized photos against ours, one core each, in one run:

python benchmarks/evaluate.py PHOTOS --json nbs/results/bench_evaluate.json"""
import argparse
import sys
import time
from unittest import mock

import numpy as np
import torch
from skimage.color import deltaE_ciede2000, lab2rgb, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

import colorgan.evaluation
from colorgan.colorizer import Colorizer
from colorgan.core import ColorganError, busy, check_number, write_json
from colorgan.evaluation import evaluate
from colorgan.judge.networks import Judges, set_scores
from colorgan.photos.files import Photo, open_photo
from colorgan.photos.sources import bundled_photos, photo_files


def colourfulness(rgb):
    "Hasler and Süsstrunk (2003), of RGB in [0, 1], `(h, w, 3)`"
    r, g, b = (255 * rgb).transpose(2, 0, 1)
    d = np.stack([r - g, (r + g) / 2 - b]).reshape(2, -1)
    return np.hypot(*d.std(1)) + .3 * np.hypot(*d.mean(1))


def plain_scores(rgb, truth):
    "The figures that scikit-image and a few lines of numpy give for one photo, both `(h, w, 3)` in [0, 1]"
    lab, true_lab = rgb2lab(rgb), rgb2lab(truth)
    ssim = structural_similarity(rgb, truth, data_range=1, channel_axis=-1, gaussian_weights=True,
                                 use_sample_covariance=False)
    return dict(ab=np.linalg.norm((lab - true_lab)[..., 1:], axis=-1).mean(),
                psnr=peak_signal_noise_ratio(truth, rgb, data_range=1), ssim=ssim,
                de2000=deltaE_ciede2000(lab, true_lab).mean(), cf=colourfulness(rgb))


def plain(weights, refs, judges):
    "One photo after the other: colorized, scored beside grey, and shown to the judging network three times"
    colorizer, scores, views = Colorizer(weights, device='cpu'), [], []
    for ref in refs:
        im = open_photo(ref)
        truth = np.asarray(im) / 255
        lab = rgb2lab(truth)
        lab[..., 1:] = 0
        seen = dict(ours=np.asarray(colorizer.images([Photo(im)])[0]) / 255, grey=lab2rgb(lab), truth=truth)
        scores.append({n: plain_scores(rgb, truth) for n, rgb in seen.items() if n != 'truth'})
        views.append({n: judges.views(torch.tensor(rgb).permute(2, 0, 1)[None].float()) for n, rgb in seen.items()})
    means = {m + end: float(np.mean([s[n][m] for s in scores]))
             for n, end in (('ours', ''), ('grey', '_grey')) for m in scores[0]['ours']}
    sets = {n: {k: torch.cat([v[n][k] for v in views]) for k in views[0][n]} for n in views[0]}
    return means | set_scores(sets['ours'], sets['truth'])


def ours(weights, refs, judges):
    with mock.patch.object(colorgan.evaluation, 'Judges', lambda device: judges):
        return evaluate(weights, refs, device='cpu')


def seconds_of_processor(way, *args):
    start = time.process_time()
    found = way(*args)
    return time.process_time() - start, found


def bench_evaluate(data=None, # color photos; None: the bundled ones
                   json_file=None, # where to write the figures
                   weights='light', items=100,
                   rounds=2, # the best of each way's counts
                  ) -> dict: # photos a second of both ways, their ratio, and by how much their figures differ
    "The plain way of judging against ours, on the same photos in one run"
    torch.set_num_threads(1)
    items = check_number('items', items, 1, 10**6, int)
    refs, load, judges = photo_files(data or bundled_photos())[:items], busy(), Judges()
    for way in (plain, ours): way(weights, refs[:2], judges) # warm
    best = {way: (np.inf, None) for way in (plain, ours)}
    for way in (plain, ours) * rounds:
        seconds, found = seconds_of_processor(way, weights, refs, judges)
        if seconds < best[way][0]: best[way] = seconds, found
    rates = {way.__name__: len(refs) / seconds for way, (seconds, _) in best.items()}
    (_, one), (_, other) = best.values()
    differ = {k: abs(other[k] / v - 1) for k, v in one.items() if k in other}
    facts = dict(weights=str(weights), photos=len(refs), load=load,
                 networks=[n for n in ('lite', 'lpips', 'inception') if getattr(judges, n)],
                 photos_per_s={n: round(r, 2) for n, r in rates.items()},
                 evaluate_ratio=round(rates['ours'] / rates['plain'], 2),
                 differ={k: float(f'{d:.1e}') for k, d in differ.items()})
    if json_file is not None: write_json(json_file, facts)
    return facts


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('photos', nargs='?', help='color photos; none: the bundled ones')
    parser.add_argument('--items', type=int, default=100, help='at most so many (100)')
    parser.add_argument('--json', metavar='FILE', help='where to write the measurements')
    args = parser.parse_args()
    try: print(bench_evaluate(args.photos, args.json, items=args.items))
    except ColorganError as e: sys.exit(f'evaluate.py: {e}')
