"""Faults in reading and writing, made to happen: the n-th call fails, or the power fails after it.

What is watched are Python's own calls (`open`, `read`, `write`, `os.replace`, `os.fsync`, …) on
files below one folder."""
import builtins
import errno
import io
import os
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

errors = dict(EIO=errno.EIO, ENOSPC=errno.ENOSPC, EACCES=errno.EACCES, ENOMEM=errno.ENOMEM)
real_open, real_os_open = io.open, os.open


def path_of(what):
    "The path of what a call was given: a path, or a file descriptor"
    if isinstance(what, int):
        try: return os.readlink(f'/proc/self/fd/{what}').removesuffix(' (deleted)')
        except OSError: return ''
    return os.path.abspath(os.fsdecode(what))


class File:
    "An open file whose reads and writes are watched"
    def __init__(self, f, path, watch): self.__dict__.update(f=f, path=path, watch=watch)
    def __getattr__(self, name):
        found = getattr(self.f, name)
        kind = dict(read='read', read1='read', readinto='read', readline='read', readlines='read',
                    write='write', writelines='write', truncate='write', flush='write').get(name)
        return found if kind is None else lambda *args: self.watch(kind, self.path, found, *args)
    def __setattr__(self, name, value): setattr(self.f, name, value)
    def __iter__(self): return iter(self.f)
    def __enter__(self):
        self.f.__enter__()
        return self
    def __exit__(self, *args): return self.f.__exit__(*args)


@contextmanager
def watched(root, watch):
    """Inside, `watch(kind, path, function, *args, **kwargs)` makes each call that has to do with a
    file below `root`"""
    root = os.path.realpath(root)
    def mine(path): return os.path.realpath(path).startswith(root + os.sep) or os.path.realpath(path) == root
    def opened(file, mode='r', *args, **kwargs):
        path = path_of(file)
        if not mine(path): return real_open(file, mode, *args, **kwargs)
        f = watch('open', path, real_open, file, mode, *args, **kwargs)
        return File(f, path, watch)
    def called(kind, function):
        def call(what, *args, **kwargs):
            path = path_of(args[0] if kind == 'link' else what)
            if not mine(path): return function(what, *args, **kwargs)
            return watch(kind, path, function, what, *args, **kwargs)
        return call
    calls = dict(open='open', replace='rename', rename='rename', fsync='fsync', unlink='unlink',
                 remove='unlink', link='link', mkdir='mkdir')
    patches = [patch.object(os, name, called(kind, getattr(os, name))) for name, kind in calls.items()]
    patches += [patch.object(builtins, 'open', opened), patch.object(io, 'open', opened)]
    for p in patches: p.start()
    try: yield
    finally:
        for p in patches: p.stop()


class NthFails:
    "The n-th watched call fails, and if `forever` all that write from there on"
    def __init__(self, n, number, forever=False):
        self.n, self.number, self.forever, self.count, self.what = n, number, forever, 0, None
    def __call__(self, kind, path, function, *args, **kwargs):
        self.count += 1
        if self.count == self.n or (self.forever and self.what and kind in ('write', 'fsync', 'mkdir')):
            if self.what is None: self.what = f'{kind} of {os.path.basename(path)}'
            reads = kind == 'read' or kind == 'open' and str(args[1:2])[2:3] == 'r'
            number = errno.EIO if reads and self.number == errno.ENOSPC else self.number
            raise OSError(number, os.strerror(number), path)
        return function(*args, **kwargs)


class PowerLoss:
    """After each watched call, what a disk would hold if the power failed there: `pictures` are dicts from
    names to bytes. Bytes survive if they were flushed; names survive, once all of them and once those of
    flushed folders."""
    def __init__(self, root):
        self.root, self.flushed, self.pictures, self.held = Path(root), {}, [], {}
        for p in self.root.rglob('*'):
            if p.is_file(): self.flushed[p.stat().st_ino] = p.read_bytes()
        self.names = self.listing()
    def listing(self):
        "Names and their inodes, which are held: no later file gets the number of one that was deleted"
        found = {str(p.relative_to(self.root)): p.stat().st_ino for p in self.root.rglob('*') if p.is_file()}
        for name, ino in found.items():
            if ino not in self.held: self.held[ino] = real_open(self.root/name, 'rb')
        return found
    def close(self):
        for f in self.held.values(): f.close()
    def __call__(self, kind, path, function, *args, **kwargs):
        try: return function(*args, **kwargs)
        finally:
            if kind == 'fsync':
                if os.path.isdir(path): self.names = self.names_after_flush(path)
                else:
                    with real_open(f'/proc/self/fd/{args[0]}', 'rb') as f:
                        self.flushed[os.fstat(args[0]).st_ino] = f.read()
            for names in self.listing(), self.names:
                self.pictures.append({k: self.flushed.get(ino, b'') for k, ino in names.items()})
    def names_after_flush(self, folder):
        there = os.path.relpath(folder, self.root)
        inside = lambda k: (os.path.dirname(k) or '.') == there
        return ({k: v for k, v in self.names.items() if not inside(k)}
                | {k: v for k, v in self.listing().items() if inside(k)})


def restored(picture, folder):
    "`picture` on a disk of its own"
    for name, content in picture.items():
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_bytes(content)
    return folder
