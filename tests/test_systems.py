"""What Windows and macOS do differently: locks without fcntl, consoles that lack letters, paths."""
import errno
import os
import subprocess
import sys
import types

import pytest

from colorgan import core
from colorgan.engine.folder import RunFolder
from light_install import main as light


def test_colorizing_with_the_light_install(): light()


def test_a_console_without_letters_gets_their_numbers():
    code = "from colorgan.cli import main; import sys; sys.exit(main(['colorize', 'фото.jpg', '--out', 'x.png']))"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True,
                          env={**os.environ, 'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0'})
    assert done.returncode == 2 and rb'\u0444\u043e\u0442\u043e.jpg' in done.stderr and done.stderr.count(b'\n') == 1


def test_a_lock_keeps_others_out(tmp_path):
    with open(tmp_path/'lock', 'w') as one, open(tmp_path/'lock', 'w') as other:
        core.lock(one)
        with pytest.raises(BlockingIOError): core.lock(other, wait=False)
    with open(tmp_path/'lock', 'w') as other: core.lock(other, wait=False)


def test_where_files_cannot_be_locked_a_training_says_so_and_goes_on(tmp_path, monkeypatch, capsys):
    def none(fd, how): raise OSError(errno.ENOLCK, 'No locks available')
    monkeypatch.setattr(core, 'fcntl', types.SimpleNamespace(flock=none, LOCK_EX=2, LOCK_NB=4))
    with RunFolder(tmp_path/'run').locked(): pass
    assert capsys.readouterr().out.count('cannot be locked (No locks available)') == 1


def test_a_lock_by_bytes_as_on_windows(tmp_path, monkeypatch):
    "With a stand-in for msvcrt that locks as Windows does: a byte at the file's position, for one file object."
    held = {}

    def locking(fd, mode, n):
        place = os.fstat(fd).st_ino, os.lseek(fd, 0, os.SEEK_CUR)
        if held.setdefault(place, fd) != fd: raise OSError(13, 'Permission denied')
    monkeypatch.setattr(core, 'fcntl', None)
    monkeypatch.setitem(sys.modules, 'msvcrt', types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    with open(tmp_path/'lock', 'a+b') as one, open(tmp_path/'lock', 'a+b') as other:
        one.write(b'abc'), one.flush(), one.seek(1)
        core.lock(one)
        assert one.read() == b'bc', 'the position is where it was'
        with pytest.raises(BlockingIOError): core.lock(other, wait=False)
        held.clear()
        core.lock(other)
    held.clear()
    with core.only_one(tmp_path/'lock') as f: assert f.seek(0, os.SEEK_END) == 3


def test_no_text_is_read_in_whatever_encoding_the_system_has():
    import ast
    from pathlib import Path
    bad = []
    for p in Path(core.__file__).parent.rglob('*.py'):
        for n in ast.walk(ast.parse(p.read_text(encoding='utf-8'))):
            if isinstance(n, ast.Call) and getattr(n.func, 'attr', '') in ('read_text', 'write_text'):
                given = n.args[n.func.attr == 'write_text':] or [k for k in n.keywords if k.arg == 'encoding']
                if not given: bad.append((p.name, n.lineno))
    assert bad == []
