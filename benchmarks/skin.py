"""Are faces of all tones colorized alike? Portraits that no training has seen, the cheeks of each
face against the truth:
python benchmarks/skin.py PORTRAITS... --weights light --weights light-l1 --json nbs/results/skin.json"""
import argparse
import sys
from pathlib import Path

import numpy as np
import torch
from skimage.data import lbp_frontal_face_cascade_filename
from skimage.feature import Cascade

from colorgan.colorizer import Colorizer
from colorgan.colour.lab import lab_of_levels
from colorgan.colour.metrics import ab_distance, warm_bias
from colorgan.core import ColorganError, write_json
from colorgan.evaluation import paint_batch, photo_at
from colorgan.judge.race import ruled
from colorgan.photos.screen import measure_photos, twins
from colorgan.photos.sources import photo_files

# degrees of ITA: the six classes of Chardon et al. (1991), two and two
tones = {'lighter': (41, 90), 'medium': (10, 41), 'darker': (-90, 10)}


def cheeks(im, cascade):
    "The strip between eyes and mouth of the largest face in an RGB image, as two slices; None without a face."
    found = cascade.detect_multi_scale(np.asarray(im), scale_factor=1.1, step_ratio=1,
                                       min_size=(40, 40), max_size=im.size)
    if not found: return None
    face = max(found, key=lambda b: b['width'])
    return tuple(slice(round(face[at] + lo * face[n]), round(face[at] + hi * face[n]))
                 for at, n, lo, hi in (('r', 'height', .48, .68), ('c', 'width', .2, .8)))


def tone_angle(lab):
    """Individual typology angle in degrees of pixels in Lab, shape `(n, 3)`: 90 is white, -90 black
    (Chardon et al. 1991)."""
    L, _, b = np.median(lab, 0)
    return float(np.degrees(np.arctan2(L - 50, b)))


def looks_like_skin(lab):
    """Whether pixels in Lab have the hue of skin in white light, and color at all: a grey photo or
    a green lamp tells nothing of tones."""
    _, a, b = np.median(lab, 0)
    return bool(np.hypot(a, b) > 6 and 15 < np.degrees(np.arctan2(b, a)) < 85)


def faces(refs, size):
    """Photos at that size in which there is a face with a color of skin: `(photo, its cheeks, their
    a and b, their tone angle)`"""
    cascade, out = Cascade(lbp_frontal_face_cascade_filename()), []
    for ref in refs:
        im = photo_at(ref, size)
        if (where := cheeks(im, cascade)) is None: continue
        lab = lab_in(im, where)
        if looks_like_skin(lab): out.append((im, where, planes(lab), tone_angle(lab)))
    return out


def lab_in(im, where): return lab_of_levels(np.asarray(im)[where]).reshape(-1, 3)


def planes(lab): return torch.from_numpy(lab[:, 1:].T.copy())[None, :, :, None] # a and b as the metrics take them


def face_rows(colorizer, found):
    "For each of `faces`: angle, error of the cheeks, error of grey, their chroma, how much too warm."
    rows = []
    for im, where, truth, angle in found:
        ab = planes(lab_in(paint_batch(colorizer, [im])[0], where))
        scores = ab_distance(ab, truth), ab_distance(truth * 0, truth), ab_distance(ab, ab * 0), warm_bias(ab, truth)
        rows.append([angle, *map(float, scores)])
    return np.array(rows, float).reshape(-1, 5)


def shares(rows): # error and chroma over the truth's, and warmth
    _, error, grey, chroma, warm = rows.mean(0)
    return np.array([error / grey, chroma / grey, warm])


def group(rows, draws=2000, seed=0):
    "The three figures of a group of faces, each with its 95 % bootstrap interval over faces."
    rng = np.random.default_rng(seed)
    drawn = np.array([shares(rows[rng.integers(len(rows), size=len(rows))]) for _ in range(draws)])
    ends = np.quantile(drawn, [.025, .975], 0).T
    return dict(faces=len(rows), **{k: dict(mean=float(m), interval=e.tolist())
                                    for k, m, e in zip(('error', 'chroma', 'warm'), shares(rows), ends)}), drawn


def card_table(result):
    "The figures of a set of weights as its model card shows them, Markdown"
    def cell(f): return '{:.2f} ({:.2f} to {:.2f})'.format(f['mean'], *f['interval'])
    head = ['skin', 'faces', "ab error / grey's", "chroma / the truth's", 'too warm by, Lab units']
    return ruled([head, *([tone, str(g['faces']), *(cell(g[k]) for k in ('error', 'chroma', 'warm'))]
                          for tone, g in result['groups'].items())])


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('data', nargs='+', metavar='PORTRAITS', help='folders of portraits, in color')
    p.add_argument('--weights', action='append', metavar='W', help='what to audit; given again, more (default: light)')
    p.add_argument('--json', metavar='FILE', help='where to write the figures')
    a = p.parse_args(argv)
    refs, results = [r for d in a.data for r in photo_files(d)], []
    measures = measure_photos(refs)
    refs = [r for i, r in enumerate(refs) if measures[i]['full_w'] and not twins(measures[i:i + 1], measures[:i])[0]]
    colorizers = {w: Colorizer(w) for w in a.weights or ['light']}
    found = {size: faces(refs, size) for size in {c.size for c in colorizers.values()}}
    for weights, colorizer in colorizers.items():
        rows = face_rows(colorizer, found[colorizer.size])
        named = {n: rows[(lo <= rows[:, 0]) & (rows[:, 0] < hi)] for n, (lo, hi) in tones.items()}
        if lacks := [n for n, r in named.items() if len(r) < 5]:
            raise ColorganError(f'{len(rows)} faces in {len(refs)} photos, and fewer than five of '
                                f'them are {" or ".join(lacks)}: give more portraits')
        groups = {n: group(r) for n, r in named.items()}
        apart = groups['darker'][1] - groups['lighter'][1]
        results.append(dict(weights=Path(weights).name, photos=len(refs), faces=len(rows),
                            groups={n: g for n, (g, _) in groups.items()},
                            darker_minus_lighter={k: np.quantile(apart[:, i], [.025, .975]).tolist()
                                              for i, k in enumerate(('error', 'chroma', 'warm'))}))
        print(results[-1]['weights'], card_table(results[-1]), sep='\n')
    if a.json: write_json(a.json, results)
    return results


if __name__ == '__main__':
    try: main()
    except ColorganError as e: sys.exit(f'skin.py: {e}')
