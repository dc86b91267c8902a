"""One photo while a network learns to colorize it, as a short film:

python tools/training_film.py scenes64.zip --valid scenes64-val.zip --photo sea/train_6688.jpg

trains the light generator from ImageNet's encoder, six minutes with L1 and two with a discriminator,
and writes nbs/images/training.webp. The photo must be one of `--valid`, which nobody trains on."""
import argparse
import copy
import tempfile
import time
from pathlib import Path

from fastai.callback.core import Callback

from colorgan import Colorizer, train
from colorgan.photos.files import open_photo
from colorgan.photos.sources import photo_files
from colorgan.visualize import film, show_sheet

stages = dict(pretrain='L1', gan='L1 and discriminator')


class Frames(Callback):
    "Colorizes a photo again and again while the network trains, and saves each result."
    run_valid = False

    def __init__(self, photo, folder, stage, height=320, every=10):
        self.photo, self.folder, self.stage = photo, folder, stage
        self.height, self.every = height, every  # of a picture, in pixels; seconds between two

    def before_fit(self): self.began, self.n = time.monotonic(), 0

    def after_batch(self):
        seconds = time.monotonic() - self.began
        if seconds < self.n * self.every: return
        gen = copy.deepcopy(getattr(self.model, 'gen', self.model)).eval()
        now = Colorizer(gen, size=64)(self.photo)
        seen = self.train_iter * self.dls.train.bs
        note = f'{stages[self.stage]}: {seconds:.0f} s, {seen:,} photos seen'
        sheet = show_sheet([[now]], notes=[note], height=self.height)
        sheet.save(self.folder/f'{self.stage}-{self.n:03}.png')
        self.n += 1


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data')
    parser.add_argument('--valid', required=True)
    parser.add_argument('--photo', required=True, help='its name in --valid')
    parser.add_argument('--minutes', type=float, nargs=2, default=(6, 2), metavar=('L1', 'GAN'))
    parser.add_argument('--out', type=Path, default=Path('nbs/images/training.webp'))
    args = parser.parse_args()

    photo = next(p for p in photo_files(args.valid) if str(p).endswith(args.photo))
    with tempfile.TemporaryDirectory() as folder:
        run, sheets = Path(folder)/'run', Path(folder)/'sheets'
        sheets.mkdir()
        train(args.data, 'light-plain', run, size=64, valid=args.valid,
              pretrain_minutes=args.minutes[0], gan_minutes=args.minutes[1],
              cbs=lambda stage: [Frames(open_photo(photo), sheets, stage)])
        film(folder, args.out, seconds=.2)
