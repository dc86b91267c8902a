"""What the two stages made of the ResNet18 U-Net, for the chapters of the series:

python tools/thread.py l1 l1-more --gan gan100 --gan gan30 --valid photos224-val.zip --scenes scenes64-val.zip

scores the weights of runs with L1, of runs against a discriminator, and the blend half-way between
the last of each, on `--valid`. The scores, their frontiers and the logs go into
nbs/results/thread.json, and the pictures thread_l1.jpg, thread_gan.jpg and thread.jpg into
nbs/images. They show scenes of `--scenes` and the photos of the package. No run may have been
trained on any of these photos."""
import argparse
import json
import tempfile
from pathlib import Path

from colorgan import Colorizer, evaluate
from colorgan.core import write_json
from colorgan.engine.folder import read_lines
from colorgan.nets.weights import blend
from colorgan.photos.files import open_photo
from colorgan.photos.sources import bundled_photos, photo_files
from colorgan.visualize import show_sheet

root = Path(__file__).parents[1]
scores = ('ab', 'ab_grey', 'de2000', 'de2000_grey', 'psnr', 'psnr_grey', 'frechet', 'frechet_grey',
          'cf', 'cf_truth')


def rounded(d): return {k: round(v, 4) if isinstance(v, float) else v for k, v in d.items()}


def about(run):
    "Seconds, settings and log of a run"
    recipe = json.loads((run/'run.json').read_text())['recipe']
    return dict(seconds=json.loads((run/'progress.json').read_text())['spent'], lam=recipe['lam'],
                sizes=recipe['sizes'], log=[rounded(line) for line in read_lines(run)])


def stages(runs, half, valid, size):
    "What `about` says of each run, by its name, and the scores and the frontier of it and of the blend"
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate([*(run/'model' for run in runs), half], valid, size=size,
                         frontier=Path(folder)/'frontier.png')
    out = {run.name: about(run) for run in runs} | {'half': {}}
    for stage, row in zip(out.values(), (found, *found['others'])):
        stage |= dict(n=found['n'], size=size,
                      scores=rounded({k: row[k] for k in scores if k in row}),
                      frontier=[rounded(point) for point in row['frontier']])
    return out


def pictures(l1, gan, half, scenes, out):
    "Three sheets: scenes after L1, other scenes after both stages, and the photos of the package"
    l1, gan, half = (Colorizer(weights) for weights in (l1/'model', gan/'model', half))
    few = [open_photo(p) for p in scenes]
    bundled = [open_photo(p) for p in bundled_photos()]
    middle = len(few) // 2
    def save(rows, titles, name):
        sheet = show_sheet(rows, titles, height=128)
        sheet.save(out/name, quality=85, optimize=True, progressive=True)
    save([[p.convert('L'), l1(p), p] for p in few[:middle]], ['grey', 'L1', 'real'], 'thread_l1.jpg')
    save([[p.convert('L'), l1(p), gan(p), half(p), p] for p in few[middle:]],
         ['grey', 'L1', 'GAN', 'half-way', 'real'], 'thread_gan.jpg')
    save([[l1(p), gan(p), half(p), p] for p in bundled], ['L1', 'GAN', 'half-way', 'real'],
         'thread.jpg')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('l1', nargs='+', type=Path, metavar='RUN', help='runs with L1, in order')
    parser.add_argument('--gan', action='append', required=True, type=Path, metavar='RUN',
                        help='a run against a discriminator; the last of them went on from the last with L1')
    parser.add_argument('--valid', required=True, help='photos to score')
    parser.add_argument('--scenes', required=True, help='scenes to show')
    parser.add_argument('--size', type=int, default=128,
                        help='short side at which photos are scored (default: 128)')
    args = parser.parse_args()
    kept = root/'nbs/results/thread.json'
    found = json.loads(kept.read_text())
    half = blend(args.l1[-1]/'model', args.gan[-1]/'model', .5)
    found['stages'] = stages([*args.l1, *args.gan], half, args.valid, args.size)
    write_json(kept, found)
    every = photo_files(args.scenes)
    pictures(args.l1[-1], args.gan[-1], half, every[10::len(every) // 10][:10], root/'nbs/images')
