"""Is a colorizer right where it says that it is sure? Held-out photos, their pixels by how far the color moves:
python benchmarks/sure.py PHOTOS... --weights light --weights light-l1 --json nbs/results/sure.json"""
import argparse

import numpy as np

from colorgan.colorizer import SURE, Colorizer, likely, paleness
from colorgan.colour.chroma import resized
from colorgan.core import write_json
from colorgan.evaluation import photo_at
from colorgan.photos.files import Photo
from colorgan.colour.lab import lab_of_levels
from colorgan.photos.sources import photo_files


def pixels(colorizer, refs, each=400, seed=0):
    """For each photo `each` pixels, as rows of: how far the color moves, its error, the error of
    grey, of the paler color."""
    rng, rows = np.random.default_rng(seed), []
    for ref in refs:
        im = photo_at(ref, colorizer.size)
        _, L = colorizer.see(Photo(im))
        ab, moved = colorizer.chroma([L])[0], colorizer.moved(L)
        truth = np.moveaxis(lab_of_levels(np.asarray(im))[..., 1:], -1, 0)
        if truth.shape != ab.shape: truth = resized(truth.astype(np.float32), ab.shape[1:])
        pale = ab * paleness(likely(moved))
        table = np.stack([moved, *(np.hypot(*d) for d in (ab - truth, truth, pale - truth)),
                          np.hypot(*ab), np.hypot(*pale)]).reshape(6, -1)
        rows.append(table[:, rng.choice(table.shape[1], each)])
    return np.stack(rows) # photos, 6, pixels


def fitted(moved, right, steps=60):
    "The two numbers of `likely`, by Newton's method for a logistic regression on the logarithm of the movement."
    X, w = np.stack([np.ones(moved.size), -np.log(moved.ravel() + .5)], 1), np.zeros(2)
    for _ in range(steps):
        p = 1 / (1 + np.exp(-X @ w))
        w += np.linalg.solve(X.T @ (X * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2), X.T @ (right.ravel() - p))
    return w.round(3).tolist()


def curve(table, draws=300, seed=0):
    """Pixels in ten equal shares by how sure the colorizer is: how often it is right, with
    intervals over photos, and how far it errs."""
    sure = likely(table[:, 0])
    edges = np.quantile(sure, np.linspace(0, 1, 11))
    which = np.clip(np.searchsorted(edges, sure, side='right') - 1, 0, 9)
    rng, out = np.random.default_rng(seed), []
    for k in range(10):
        n = (which == k).sum(1)
        right, error, grey = (np.where(which == k, v, 0).sum(1) for v in (table[:, 1] < 10, table[:, 1], table[:, 2]))
        photos = rng.integers(len(table), size=(draws, len(table)))
        ends = np.quantile(right[photos].sum(1) / np.maximum(1, n[photos].sum(1)), [.025, .975])
        out.append(dict(sure=float(sure[which == k].mean()), right=float(right.sum() / n.sum()), interval=ends.tolist(),
                        error=float(error.sum() / n.sum()), grey=float(grey.sum() / n.sum())))
    return out


def main(argv=None):
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('data', nargs='+')
    p.add_argument('--weights', action='append')
    p.add_argument('--items', type=int)
    p.add_argument('--json')
    a = p.parse_args(argv)
    refs, results = [r for d in a.data for r in photo_files(d)], []
    refs = [refs[i] for i in np.random.default_rng(0).permutation(len(refs))][:a.items]
    for weights in a.weights or ['light']:
        table = pixels(Colorizer(weights), refs)
        half = len(table) // 2
        rows = curve(table[half:])
        ranks = [np.argsort(np.argsort(table[half:, i].ravel())) for i in (0, 1)]
        result = dict(weights=weights, photos=len(table), fitted_on=half,
                      fitted=fitted(table[:half, 0], table[:half, 1] < 10),
                      used=list(SURE), curve=rows,
                      off=float(np.mean([abs(r['sure'] - r['right']) for r in rows])),
                      error=float(table[half:, 1].mean()), error_grey=float(table[half:, 2].mean()),
                      error_pale=float(table[half:, 3].mean()),
                      chroma=float(table[half:, 4].mean()),
                      chroma_pale=float(table[half:, 5].mean()),
                      correlation=float(np.corrcoef(*ranks)[0, 1]))
        results.append(result)
        print(f"{weights}: {len(table)} photos, fitted {result['fitted']}, used {result['used']}; "
              f"off by {result['off']:.3f} on average; "
              f"error {rows[0]['error']:.1f} in the tenth that is least sure, {rows[-1]['error']:.1f} in the surest; "
              f"rank correlation of movement and error {result['correlation']:.2f}; "
              f"pale: error {result['error']:.2f} -> {result['error_pale']:.2f}, "
              f"chroma {result['chroma']:.1f} -> {result['chroma_pale']:.1f}")
    if a.json: write_json(a.json, results)
    return results


if __name__ == '__main__': main()
