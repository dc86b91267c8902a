"""Make the pictures in notebooks small: a PNG output beyond 60 kB becomes a JPEG at most 1200
pixels wide, and of a picture kept in both forms the smaller one stays. Usage: shrink.py NOTEBOOK..."""
import base64, io, json, sys
from pathlib import Path
from PIL import Image

def smaller(png, width=1200, limit=60_000):
    "The JPEG of a base64 PNG, or None where the PNG is small enough"
    raw = base64.b64decode(png)
    if len(raw) <= limit: return None
    im = Image.open(io.BytesIO(raw)).convert('RGB')
    if im.width > width:
        im = im.resize((width, round(im.height * width / im.width)), Image.Resampling.LANCZOS)
    im.save(out := io.BytesIO(), 'JPEG', quality=80, optimize=True)
    return base64.b64encode(out.getvalue()).decode()

def shrink(path):
    nb = json.loads(path.read_text())
    for data in (o['data'] for c in nb['cells']
                 for o in c.get('outputs', []) if 'image/png' in o.get('data', {})):
        if jpeg := smaller(''.join(data['image/png'])):
            del data['image/png']
            data['image/jpeg'] = jpeg
        elif len(data.get('image/jpeg', data['image/png'])) < len(data['image/png']):
            del data['image/png']
        else: data.pop('image/jpeg', None)
    path.write_text(json.dumps(nb, indent=1, ensure_ascii=False) + '\n')

if __name__ == '__main__':
    for name in sys.argv[1:]: shrink(Path(name))
