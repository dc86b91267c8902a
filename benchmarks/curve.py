"""Does a curve through the chroma beat a factor? Colors of one network, all of them stronger or only
the strong ones, against the truth:

python benchmarks/curve.py photos224-val.zip photos256-val.zip tiny64-val.zip --json nbs/results/curve.json"""
import argparse
import sys
from pathlib import Path

import numpy as np

from colorgan.colorizer import Colorizer, network
from colorgan.core import ColorganError, check_number, write_json
from colorgan.evaluation import frontier, score_set, steeper
from colorgan.judge.networks import Judges
from colorgan.photos.sources import photo_files

KNEES = {'factor': 0, 'curve': 15} # chroma, in Lab units, above which colors are made stronger
STRENGTHS = (1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4, 6)


def curve_rows(refs, weights='light'):
    """The `frontier` of both ways, and in each row `off`: by how much a photo's colorfulness misses,
    over the truth's mean"""
    net, named = network(weights, 'cpu'), lambda way, k: way if k == 1 else (way, k) # as in `score_set`
    colorizers = {named(way, k): Colorizer(steeper(net, knee, k))
                  for way, knee in KNEES.items() for k in STRENGTHS}
    tables, *_ = score_set(colorizers, refs, judges=Judges())
    truth, rows = tables.scores['truth']['cf'], {}
    for way in KNEES:
        rows[way] = frontier(tables, way, STRENGTHS)
        for row in rows[way]:
            own = tables.scores[named(way, row['factor'])]['cf']
            row['off'] = float(np.abs(own - truth).mean() / truth.mean())
        rows[way] = [{m: round(v, 4) for m, v in row.items()} for row in rows[way]]
    return rows


def bench_curve(data, json_file=None, weights='light', items=100):
    "`curve_rows` of each set of photos, at most `items` of it, the first"
    items, results = check_number('items', items, 1, 10**6, int), []
    for d in data:
        refs = photo_files(d)[:items]
        results.append(dict(photos=Path(d).stem, n=len(refs), weights=weights,
                            rows=curve_rows(refs, weights)))
        print(results[-1], flush=True)
    if json_file is not None: write_json(json_file, results)
    return results


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('photos', nargs='+', help='color photos that were never trained on')
    parser.add_argument('--weights', default='light', help='what to colorize with (light)')
    parser.add_argument('--items', type=int, default=100, help='at most so many of each set (100)')
    parser.add_argument('--json', metavar='FILE', help='where to write the figures')
    args = parser.parse_args()
    try: bench_curve(args.photos, args.json, args.weights, args.items)
    except ColorganError as e: sys.exit(f'curve.py: {e}')
