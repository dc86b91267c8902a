"""The pictures of old photographs, made with the weights of the package:

python tools/pictures.py historical.zip

writes front.jpg, historical.jpg and failure.jpg into nbs/images. The zip holds sixteen photographs,
most of them from before 1928."""
import argparse
from pathlib import Path

from colorgan import Colorizer
from colorgan.photos.files import open_photo
from colorgan.photos.sources import photo_files
from colorgan.visualize import show_sheet

front = '1870Girl', 'civil-war_2', 'civil_war_4'
eight = ('1870Girl', 'PicadillyLate1800s', 'civil-war_2', 'civil_war_4', '1899SodaFountain',
         'PaddingtonStationLondon1907', 'HerbSeller1899Paris', 'SutroBaths1880s')


def pairs(photos, height):
    "Grey and in color, both `height` pixels high."
    colorize, grey = Colorizer(), [p.convert('L') for p in photos]
    return [tuple(im.resize((round(im.width * height / im.height), height)) for im in pair)
            for pair in zip(grey, map(colorize, photos))]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos')
    parser.add_argument('--out', type=Path, default=Path('nbs/images'))
    args = parser.parse_args()
    by_name = {Path(str(p)).stem: open_photo(p) for p in photo_files(args.photos)}

    def save(name, rows):
        show_sheet(rows, gap=8).save(args.out/f'{name}.jpg', quality=82, optimize=True,
                                     progressive=True)

    save('front', zip(*pairs([by_name[n] for n in front], 440)))
    shown = pairs([by_name[n] for n in eight], 256)
    save('historical', [[im for pair in shown[i:i + 2] for im in pair] for i in range(0, 8, 2)])
    save('failure', pairs([by_name['JerseyShore1905']], 420))
