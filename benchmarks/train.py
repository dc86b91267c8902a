"""The training loop that everybody copies against ours, on the same photos in one run:
`python benchmarks/train.py --json FILE`."""
import argparse
import sys, tempfile, time
import torch
from fastai.callback.core import Callback
from fastai.vision.learner import create_body
from fastai.vision.models.unet import DynamicUnet
from functools import lru_cache
from pathlib import Path
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import resnet18
from colorgan.photos.cache import make_cache
from colorgan.engine.fast import best_precision, fast_math, precision
from colorgan.critic import patchgan
from colorgan.data import default_device, get_dls
from colorgan.gan import gan_learner
from colorgan.core import ColorganError, busy, cores, write_json
from colorgan.photos.sources import photo_files
from colorgan.pretrain import pretrain_learner
from colorgan.recipes import replace
from data import TutorialData, cut_photos, threads

class Watch:
    "Seconds of each part of the steps, summed; and when each step was over"
    def __init__(self, device, parts=False):
        self.device, self.parts, self.sums, self.ends, self.last = device, parts, {}, [], None
    def now(self):
        if self.device.type == 'cuda': torch.cuda.synchronize(self.device)
        return time.perf_counter()
    def mark(self, name):
        "The part `name` is over"
        if not self.parts: return
        now = self.now()
        if self.ends: self.sums[name] = self.sums.get(name, 0.) + now - self.last
        self.last = now
    def end(self):
        "A step is over"
        self.ends.append(self.now())
        self.last = self.ends[-1]
    @property
    def seconds(self): return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)

class TutorialLoop:
    "Networks, losses and optimizers of the tutorial, and a pass over its photos"
    def __init__(self, refs, size, bs, device):
        body = create_body(resnet18(), n_in=1, pretrained=False, cut=-2)
        self.gen = DynamicUnet(body, 2, (size, size)).to(device)
        self.critic, self.device = patchgan().net.to(device), device
        self.opts = [torch.optim.Adam(m.parameters(), lr=2e-4, betas=(.5, .999))
                     for m in (self.gen, self.critic)]
        self.data = DataLoader(TutorialData(refs, size), batch_size=bs, shuffle=True,
                               num_workers=cores(), pin_memory=True)
        self.adv, self.l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
    def judge(self, photos, true):
        logits = self.critic(photos)
        return self.adv(logits, torch.full_like(logits, float(true)))
    def run(self, stage, parts=False):
        "One pass over the photos"
        watch, step = Watch(self.device, parts), self.gan_step if stage == 'gan' else self.l1_step
        for b in self.data:
            L, ab = b['L'].to(self.device), b['ab'].to(self.device)
            watch.mark('data')
            fetched = [l.item() for l in step(L, ab, watch)]
            watch.mark('fetching losses')
            watch.end()
        assert all(l == l for l in fetched)
        return watch
    def critic_turn(self, L, ab, fake):
        for p in self.critic.parameters(): p.requires_grad = True
        self.opts[1].zero_grad()
        losses = self.judge(torch.cat([L, fake.detach()], 1),
                            False), self.judge(torch.cat([L, ab], 1), True)
        total = sum(losses) * .5
        total.backward()
        self.opts[1].step()
        return [*losses, total]
    def gen_turn(self, L, ab, fake, watch):
        for p in self.critic.parameters(): p.requires_grad = False
        self.opts[0].zero_grad()
        losses = self.judge(torch.cat([L, fake], 1), True), self.l1(fake, ab) * 100
        watch.mark('loss')
        total = sum(losses)
        total.backward()
        watch.mark('backward')
        self.opts[0].step()
        watch.mark('optimizer')
        return [*losses, total]
    def gan_step(self, L, ab, watch):
        fake = self.gen(L)
        watch.mark('generator')
        losses = self.critic_turn(L, ab, fake)
        watch.mark("critic's turn")
        return losses + self.gen_turn(L, ab, fake, watch)
    def l1_step(self, L, ab, watch):
        fake = self.gen(L)
        watch.mark('generator')
        loss = self.l1(fake, ab)
        self.opts[0].zero_grad()
        watch.mark('loss')
        loss.backward()
        watch.mark('backward')
        self.opts[0].step()
        watch.mark('optimizer')
        return [loss]

class Reading(Callback):
    "Read the watch at the turns of fastai's loop"
    order = 99
    def __init__(self, watch): self.watch = watch
    def before_batch(self):
        if self.training: self.watch.mark('data')
    def after_pred(self):
        if self.training: self.watch.mark('generator')
    def after_loss(self):
        if self.training: self.watch.mark('loss')
    def after_backward(self): self.watch.mark('backward')
    def after_step(self): self.watch.mark('optimizer')
    def after_batch(self):
        if self.training: self.watch.end()

class OurLoop:
    "The learner of a recipe's stage, and a pass over the photos of a cache"
    def __init__(self, cache, recipe, stage, device, amp=None):
        self.device = device
        valid = photo_files(cache)[:2]
        dls = get_dls(cache, recipe.size, recipe.bs, recipe.space, valid=valid, device=device,
                      screen=False)
        self.learn = (gan_learner if stage == 'gan' else pretrain_learner)(dls, recipe)
        self.amp = amp or best_precision(device, self.learn.model)
        self.cbs = precision(device, self.amp)
    def run(self, stage=None, parts=False):
        "One pass over the photos"
        watch = Watch(self.device, parts)
        with self.learn.no_bar(), self.learn.no_logging(), fast_math(self.device):
            self.learn.fit(1, cbs=[Reading(watch), *self.cbs])
        return watch

def loops(photos, size, bs, device):
    "Every loop by name: what makes it, once, and its stage"
    cache, began = Path(photos).with_suffix('.cache'), time.perf_counter()
    refs = photo_files(photos)
    make_cache(photos, cache, size, say=lambda text: None)
    print(f'{len(refs)} photos cached in {time.perf_counter() - began:.1f} s')
    same, light = replace('resnet18-two-stage', size=size,
                          bs=bs), replace('light-plain', size=size, bs=bs)
    tutorial = lru_cache(lambda: TutorialLoop(refs, size, bs, device))
    ours = lambda recipe, stage, *amp: (lru_cache(lambda: OurLoop(cache, recipe, stage, device,
                                                                  *amp)), stage)
    return {'tutorial_gan': (tutorial, 'gan'), 'tutorial_l1': (tutorial, 'pretrain'),
            'same_net_gan': ours(same, 'gan'),
            'same_net_gan_fp32': ours(same, 'gan', 'fp32'), 'light_gan': ours(light, 'gan'),
            'light_l1': ours(light, 'pretrain')}

def peak_memory(loop, stage, device):
    """The bytes that a GPU holds at most while a loop is made and runs, beyond what it holds
    already; None elsewhere"""
    if device.type != 'cuda': return loop().run(stage) and None
    torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    loop().run(stage)
    return torch.cuda.max_memory_allocated(device) - before

def ratios(rates, # photos per second of each loop
           device):
    "How many times faster ours is, stage by stage"
    r = {k: round(rates[k] / rates[f"tutorial_{k.split('_')[-1]}"], 2)
         for k in ('same_net_gan', 'light_gan', 'light_l1')}
    names = (dict(same_net_gan='same_net', light_gan='light_gan', light_l1='light_l1')
             if device.type == 'cpu' else dict(same_net_gan='same_net', light_gan='light'))
    return {f'{device.type.replace("cuda", "gpu")}_{n}_ratio': r[k] for k, n in names.items()}

def bench_train(json_file=None, # where to write the figures
                rounds=4, # in which the loops take turns
                steps=5, # of each pass; the first is not counted
                size=None, # None: 256 on a GPU, 64 on a processor
                bs=16, device=None,
                n_threads=None, # of torch; None: as many as there are cores
                say=print, # told the figures
               ) -> dict: # photos per second of each loop, ratios, and what each part of a step costs
    "The tutorial's training loop and ours side by side"
    device, load = default_device(device), busy()
    size, best, parts = size or (64 if device.type == 'cpu' else 256), {}, {}
    n_threads = n_threads or cores()
    with tempfile.TemporaryDirectory() as tmp, threads(n_threads):
        photos = Path(tmp)/'photos'
        photos.mkdir(); cut_photos(photos, steps * bs, 256)
        all_loops = loops(photos, size, bs, device)
        memory = {name: peak_memory(loop, stage, device)
                  for name, (loop, stage) in all_loops.items()}
        for _ in range(rounds):
            for name, (loop, stage) in all_loops.items():
                best[name] = max(best.get(name, 0.), round(bs / loop().run(stage).seconds, 2))
        for name, (loop, stage) in all_loops.items():
            parts[name] = {k: round(v / (steps - 1) * 1000, 1)
                           for k, v in loop().run(stage, parts=True).sums.items()}
        precisions = {name: getattr(loop(), 'amp', 'fp32') for name, (loop, _) in all_loops.items()}
    for name, r in best.items(): say(f'{name}: {r:,.1f} photos/s')
    facts = (dict(device=device.type, size=size, bs=bs, cores=cores(), threads=n_threads,
                  load=load, torch=torch.__version__) | ratios(best, device))
    if device.type == 'cuda':
        facts |= dict(gpu=torch.cuda.get_device_name(device),
                      gpu_peak_memory_ratio=round(memory['same_net_gan'] / memory['tutorial_gan'], 2))
    facts |= dict(precision=precisions, photos_per_s=best, ms_per_step=parts)
    if json_file is not None: write_json(json_file, facts)
    return facts


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', metavar='FILE', help='where to write the measurements')
    parser.add_argument('--device', help='cpu or cuda; without it, the best there is')
    args = parser.parse_args()
    try: bench_train(args.json, device=args.device)
    except ColorganError as e: sys.exit(f'train.py: {e}')
