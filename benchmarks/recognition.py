"""What does a colorizer's encoder still know of the classes that it was pretrained on? By their names:
what it sees in grey photos goes through the last layers of the classifier that it came from, against
what this classifier sees in color. And by their neighbors, whatever they are called: photos in folders
are named by the folders of their 20 nearest in `--known`:

python benchmarks/recognition.py tiny64-val.zip --known tiny64.zip --weights light --weights light-l1"""
import argparse
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from teach import named_right

from colorgan.color import LabSpace
from colorgan.core import ColorganError, check_number, photo_name, write_json
from colorgan.evaluation import photo_at, rgb_tensor
from colorgan.generator import create_gen
from colorgan.judge.race import ruled
from colorgan.loss import RecognitionLoss, divergence
from colorgan.nets.weights import load_model
from colorgan.photos.sources import photo_files
from colorgan.recipes import get_recipe

AS_IT_CAME = 'ImageNet'


def batches(refs, size):
    "The middle squares of photos, as networks see them: L, and the truth"
    for i in range(0, len(refs), 20):
        x, y = LabSpace().encode(rgb_tensor([photo_at(r, size, 'crop') for r in refs[i:i + 20]]))
        yield x.as_subclass(torch.Tensor), y


def last_map(gen, x): return gen.net.encoder(gen.net.grey(x))[-1]


@torch.no_grad()
def by_name(gens, refs, size=224):
    """For each of the generators `same`: the share of photos for which both name the same class;
    `top5`: in which the class in color is among the five likeliest in grey; `kl`: the divergence, in nats"""
    losses = {name: RecognitionLoss(gen) for name, gen in gens.items()}
    if None in [loss.net for loss in losses.values()]: raise ColorganError('there is no classifier to compare with')
    sums = {name: torch.zeros(3) for name in gens}
    for x, y in batches(refs, size):
        for name, gen in gens.items():
            last_map(gen, x)
            grey, color = losses[name].answers(y)
            best = color.argmax(1, keepdim=True)
            sums[name] += torch.stack([(grey.argmax(1, keepdim=True) == best).sum(),
                                       (grey.topk(5).indices == best).sum(), divergence(grey, color) * len(x)])
    return {name: dict(zip(('same', 'top5', 'kl'), (s / len(refs)).tolist())) for name, s in sums.items()}


@torch.no_grad()
def features(gens, refs, size=128):
    "For each of the generators its last map, pooled, as unit vectors, and the folders that the photos are in"
    found = {name: [] for name in gens}
    for x, _ in batches(refs, size):
        for name, gen in gens.items(): found[name].append(last_map(gen, x).mean((2, 3)))
    folders = [Path(photo_name(r)).parent.name for r in refs]
    return {name: (F.normalize(torch.cat(v), dim=1), folders) for name, v in found.items()}


def bench_recognition(data, weights, known=None, json_file=None, items=100):
    "Both for each of the weights, after the encoder as it came; by name on at most `items` photos"
    items, asked = check_number('items', items, 1, 10**6, int), photo_files(data)
    gens = {name: (create_gen(get_recipe('light')) if name == AS_IT_CAME else load_model(name)).eval()
            for name in (AS_IT_CAME, *weights)}
    results, shares = by_name(gens, asked[:items]), ['same', 'top5']
    if known:
        at = [features(gens, refs) for refs in (photo_files(known), asked)]
        shares.append('neighbors')
        for name in gens: results[name]['neighbors'] = named_right(*(found[name] for found in at))
    print(ruled([['', *shares, 'kl'], *([name, *(f'{r[k]:.0%}' for k in shares), f"{r['kl']:.2f}"]
                                        for name, r in results.items())]))
    if json_file is not None: write_json(json_file, results)
    return results


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('photos', help='color photos that were never trained on')
    parser.add_argument('--known', metavar='DATA', help='other photos, in folders of the same names')
    parser.add_argument('--weights', action='append', default=[], help='a colorizer; may be given several times')
    parser.add_argument('--items', type=int, default=100, help='at most so many photos by name (100)')
    parser.add_argument('--json', metavar='FILE', help='where to write the figures')
    args = parser.parse_args()
    try: bench_recognition(args.photos, args.weights, args.known, args.json, args.items)
    except ColorganError as e: sys.exit(f'recognition.py: {e}')
