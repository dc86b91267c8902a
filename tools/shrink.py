"""Make the pictures in notebooks small: a drawing gets a palette if nobody can see the difference, another
PNG output beyond 60 kB becomes a JPEG at most 1200 pixels wide, and of a picture kept in both forms the
smaller one stays. Usage: shrink.py NOTEBOOK..."""
import base64, io, json, sys
from pathlib import Path
import numpy as np
from PIL import Image

def with_palette(png, colours=128, limit=15_000, most=.25):
    "The same picture with few colors; None where the PNG is small, or levels differ by more than `most` on average"
    raw = base64.b64decode(png)
    if len(raw) <= limit: return None
    im = Image.open(io.BytesIO(raw)).convert('RGB')
    few = im.quantize(colours, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    if np.abs(np.asarray(few.convert('RGB'), int) - np.asarray(im, int)).mean() > most: return None
    few.save(out := io.BytesIO(), 'PNG', optimize=True)
    return base64.b64encode(out.getvalue()).decode() if len(out.getvalue()) < .7 * len(raw) else None

def smaller(png, width=1200, limit=60_000):
    "The JPEG of a base64 PNG, or None where the PNG is small enough"
    raw = base64.b64decode(png)
    if len(raw) <= limit: return None
    im = Image.open(io.BytesIO(raw)).convert('RGB')
    if im.width > width:
        im = im.resize((width, round(im.height * width / im.width)), Image.Resampling.LANCZOS)
    im.save(out := io.BytesIO(), 'JPEG', quality=80, optimize=True, progressive=True)
    return base64.b64encode(out.getvalue()).decode()

def shrink(path):
    nb = json.loads(path.read_text())
    for data in (o['data'] for c in nb['cells']
                 for o in c.get('outputs', []) if 'image/png' in o.get('data', {})):
        if few := with_palette(''.join(data['image/png'])): data['image/png'] = few
        elif jpeg := smaller(''.join(data['image/png'])): data['image/jpeg'] = jpeg
        if 'image/jpeg' in data:
            del data[max(('image/png', 'image/jpeg'), key=lambda k: len(''.join(data[k])))]
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + '\n')

if __name__ == '__main__':
    for name in sys.argv[1:]: shrink(Path(name))
