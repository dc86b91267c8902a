"""What the two stages made of the ResNet18 U-Net, for the chapters of the series:

python tools/thread.py l1 gan gan30 --valid photos224-val.zip --scenes scenes64-val.zip

scores the weights of a run with L1, and of runs that went on from it against a discriminator, on
`--valid`. The scores, their frontiers and the logs go into nbs/results/thread.json, and the pictures
thread_l1.jpg, thread_gan.jpg and thread.jpg into nbs/images. They show scenes of `--scenes` and the
photos of the package. No run may have been trained on any of these photos."""
import argparse
import json
import tempfile
from pathlib import Path

from colorgan import Colorizer, evaluate
from colorgan.core import write_json
from colorgan.engine.folder import read_lines
from colorgan.photos.files import open_photo
from colorgan.photos.sources import bundled_photos, photo_files
from colorgan.visualize import show_sheet

root = Path(__file__).parents[1]
scores = ('ab', 'ab_grey', 'de2000', 'de2000_grey', 'psnr', 'psnr_grey', 'frechet', 'frechet_grey',
          'cf', 'cf_truth')


def rounded(d): return {k: round(v, 4) if isinstance(v, float) else v for k, v in d.items()}


def stages(runs, valid, size):
    "Seconds, settings, log, scores and frontier of each run, by the run's name"
    with tempfile.TemporaryDirectory() as folder:
        found = evaluate([run/'model' for run in runs], valid, size=size,
                         frontier=Path(folder)/'frontier.png')
    out = {}
    for run, row in zip(runs, (found, *found['others'])):
        out[run.name] = dict(n=found['n'], size=size,
                             seconds=json.loads((run/'progress.json').read_text())['spent'],
                             lam=json.loads((run/'run.json').read_text())['recipe']['lam'],
                             log=[rounded(line) for line in read_lines(run)],
                             scores=rounded({k: row[k] for k in scores if k in row}),
                             frontier=[rounded(point) for point in row['frontier']])
    return out


def pictures(runs, lams, scenes, out):
    "Three sheets: scenes after L1, other scenes after each run, and the photos of the package"
    l1, *gans = (Colorizer(run/'model') for run in runs)
    few = [open_photo(p) for p in scenes]
    half = len(few) // 2
    show_sheet([[p.convert('L'), l1(p), p] for p in few[:half]], ['grey', 'L1', 'real'],
               height=128).save(out/'thread_l1.jpg', quality=85)
    named = [f'GAN, lam={lam:g}' for lam in lams[1:]]
    show_sheet([[p.convert('L'), l1(p), *(gan(p) for gan in gans), p] for p in few[half:]],
               ['grey', 'L1', *named, 'real'], height=128).save(out/'thread_gan.jpg', quality=85)
    bundled = [open_photo(p) for p in bundled_photos()]
    show_sheet([[l1(p), *(gan(p) for gan in gans), p] for p in bundled], ['L1', *named, 'real'],
               height=128).save(out/'thread.jpg', quality=85)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('runs', nargs='+', type=Path, metavar='RUN',
                        help='the run with L1, then those with a discriminator')
    parser.add_argument('--valid', required=True, help='photos to score')
    parser.add_argument('--scenes', required=True, help='scenes to show')
    parser.add_argument('--size', type=int, default=128, help='short side at which photos are scored (default: 128)')
    args = parser.parse_args()
    kept = root/'nbs/results/thread.json'
    found = json.loads(kept.read_text())
    found['stages'] = stages(args.runs, args.valid, args.size)
    write_json(kept, found)
    every = photo_files(args.scenes)
    pictures(args.runs, [s['lam'] for s in found['stages'].values()], every[10::len(every) // 10][:10],
             root/'nbs/images')
