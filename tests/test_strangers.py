"""Files, servers and models of strangers: what they may do is bounded, and what is wrong with them is one sentence."""
import hashlib
import http.server
import json
import os
import shutil
import tarfile
import threading
import time
import zipfile
from contextlib import contextmanager

import numpy as np
import onnx
import pytest

from colorgan.cli import main
from colorgan.colorizer import Colorizer, OnnxNet
from colorgan.core import ColorganError, fetch
from colorgan.nets.weights import bundled_weights, find_weights, load_model
from colorgan.photos.sources import unpack

blob, other = (np.random.default_rng(i).bytes(400_000) for i in (0, 1))
light = bundled_weights()['light']


class Server(http.server.BaseHTTPRequestHandler):
    "Serves `content`; its class attributes say how well"
    content, tag, cut, length, pause, asked = blob, '"1"', None, True, 0, []
    def do_GET(self):
        start = int(self.headers['Range'][6:-1])
        self.asked.append((start, self.headers.get('If-Range')))
        if self.headers.get('If-Range') not in (None, self.tag): start = 0
        if start >= len(self.content):
            self.send_response(416)
            self.send_header('Content-Range', f'bytes */{len(self.content)}')
            return self.end_headers()
        self.send_response(206 if start else 200)
        if self.length: self.send_header('Content-Length', str(len(self.content) - start))
        if self.tag: self.send_header('ETag', self.tag)
        self.end_headers()
        for i in range(start, min(self.cut or len(self.content), len(self.content)), 100_000 if not self.pause else 10):
            end = min(self.cut or len(self.content), i + (100_000 if not self.pause else 10))
            self.wfile.write(self.content[i:end])
            self.wfile.flush()
            time.sleep(self.pause)
    def log_message(self, *args): pass


@contextmanager
def serving(**kwargs):
    handler = type('Handler', (Server,), dict(kwargs, asked=[]))
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.url = f'http://127.0.0.1:{server.server_port}/x'
    try: yield handler
    finally: server.shutdown()


def test_old_part_and_new_file_do_not_mix(tmp_path):
    with serving(cut=150_000) as server:
        with pytest.raises(ColorganError, match='the connection broke off.*goes on where it was'):
            fetch(server.url, tmp_path/'x')
        server.content, server.tag, server.cut = other, '"2"', None
        assert fetch(server.url, tmp_path/'x').read_bytes() == other
        assert server.asked == [(0, None), (150_000, '"1"')]


def test_part_without_a_tag_is_not_believed(tmp_path):
    (tmp_path/'x.part').write_bytes(other[:1000])
    with serving() as server: assert fetch(server.url, tmp_path/'x').read_bytes() == blob


def test_416_is_success_only_if_the_length_fits(tmp_path):
    (tmp_path/'x.part').write_bytes(blob)
    (tmp_path/'x.part.tag').write_text('"1"')
    with serving() as server:
        assert fetch(server.url, tmp_path/'x').read_bytes() == blob
        (tmp_path/'y.part').write_bytes(blob + b'more')
        (tmp_path/'y.part.tag').write_text('"1"')
        assert fetch(server.url, tmp_path/'y').read_bytes() == blob


def test_cut_without_a_length_is_noticed(tmp_path):
    with serving(length=False, cut=1000) as server:
        with pytest.raises(ColorganError, match='does not say how long the file is'): fetch(server.url, tmp_path/'x')
        md5 = hashlib.md5(blob).hexdigest()
        with pytest.raises(ColorganError, match='checksum differs, or it is cut off'):
            fetch(server.url, tmp_path/'x', md5)
        server.cut = None
        assert fetch(server.url, tmp_path/'x', md5).read_bytes() == blob


def test_slow_server_is_given_up(tmp_path):
    with serving(pause=.05) as server:
        begun = time.monotonic()
        with pytest.raises(ColorganError, match='bytes in .* seconds'): fetch(server.url, tmp_path/'x', timeout=.3)
        assert time.monotonic() - begun < 5


def test_several_that_download_the_same_file(tmp_path):
    results = []
    with serving(pause=0) as server:
        def ask(): results.append(fetch(server.url, tmp_path/'x').read_bytes())
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert results == [blob] * 8 and len(server.asked) == 1
    assert os.listdir(tmp_path) == ['x']


def test_published_checksum(tmp_path):
    with serving() as server:
        with pytest.raises(ColorganError, match='checksum differs'): fetch(server.url, tmp_path/'x', sha256='0' * 8)
        assert fetch(server.url, tmp_path/'x', sha256=hashlib.sha256(blob).hexdigest()[:8]).read_bytes() == blob


def test_weights_without_a_published_checksum_are_told_by_name_and_hash(tmp_path, monkeypatch, capsys):
    import torch
    from colorgan.nets.encoder import weights_file
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: tmp_path)
    digest = hashlib.sha256(blob).hexdigest()
    with serving() as server:
        weights_file(server.url, 'net.safetensors')
        assert capsys.readouterr().out == f'net.safetensors from {server.url}, SHA-256 {digest}.\n'
        with pytest.raises(ColorganError, match='checksum differs'): weights_file(f'{server.url}/net-{"0" * 8}.pth')
        assert weights_file(f'{server.url}/net-{digest[:8]}.pth').read_bytes() == blob and capsys.readouterr().out == ''


def test_archives_do_not_unfold_without_limit(tmp_path):
    with zipfile.ZipFile(tmp_path/'a.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.writestr('zeros', bytes(60_000_000))
    (tmp_path/'zeros').write_bytes(bytes(60_000_000))
    with tarfile.open(tmp_path/'a.tgz', 'w:gz') as t: t.add(tmp_path/'zeros', 'zeros')
    for name in 'a.zip', 'a.tgz':
        with pytest.raises(ColorganError, match='unfolds to more than 50 times its size'):
            unpack(tmp_path/name, tmp_path/'out')
        assert not (tmp_path/'out').exists() and (tmp_path/name).exists()


@pytest.fixture
def no_network(monkeypatch):
    "Who asks for anything elsewhere fails the test."
    asked = []
    def refuse(*args, **kwargs):
        asked.append(args)
        raise OSError('there is no network here')
    monkeypatch.setattr('colorgan.core.urlopen', refuse)
    monkeypatch.setattr('socket.socket.connect', refuse)
    yield
    assert not asked


def stranger(folder, **recipe):
    "A copy of the bundled model whose `model.json` says something else"
    shutil.copytree(light, folder, ignore=shutil.ignore_patterns('*.onnx'))
    info = json.loads((folder/'model.json').read_text())
    info['recipe'] |= recipe
    (folder/'model.json').write_text(json.dumps(info))
    return folder


@pytest.mark.parametrize('recipe, sentence', [
    (dict(gen_kw={'encoder': 'hf-hub:somebody/net'}), 'timm has no network'),
    (dict(gen_kw={'encoder': 'local-dir:/etc'}), 'timm has no network'),
    (dict(gen='fusion_net', gen_kw={'classifier': 'hf-hub:somebody/net'}), 'timm has no network'),
    (dict(size=10**9), 'size 1000000000, and no network of colorgan is that large'),
    (dict(gen_kw={'width': 1e9}), 'no network of colorgan is that large'),
    (dict(gen_kw={'width': 4000.}), 'no network of colorgan is that large'),
    (dict(gen_kw={'width': 2., 'head': 'bins'}), 'belong to another recipe'),
    (dict(gen='pix2pix_unet', gen_kw={'base': 4096}), 'belong to another recipe')], ids=str)
def test_model_of_a_stranger(recipe, sentence, tmp_path, no_network):
    with pytest.raises(ColorganError, match=sentence): load_model(stranger(tmp_path/'model', **recipe))


def test_pretrained_in_a_model_reads_nothing(tmp_path, no_network):
    load_model(stranger(tmp_path/'model', gen_kw={'chroma': 4, 'queries': 20, 'pretrained': '/etc/passwd'}))


def test_mistyped_folder_asks_nobody(no_network, capsys):
    with pytest.raises(ColorganError, match='there are no weights at run/model.*hf:owner/name'):
        find_weights('run/model')
    assert main(['colorize', str(light/'model.json'), '--weights', 'run/model', '--out', '-']) == 2


@pytest.mark.parametrize('field, value', [('stride', '0'), ('stride', '-32'), ('stride', 'many'),
                                          ('size', str(10**9)), ('size', '')])
def test_graph_of_a_stranger(field, value, tmp_path):
    model = onnx.load(light/'model.onnx')
    props = {p.key: p.value for p in model.metadata_props} | {field: value}
    onnx.helper.set_model_props(model, props)
    onnx.save(model, tmp_path/'x.onnx')
    with pytest.raises(ColorganError, match=f'{field} cannot be'): OnnxNet(tmp_path/'x.onnx')


def test_network_that_predicts_nonsense_is_refused():
    grey = np.full((40, 40), .5, np.float32)
    for net in lambda L: L, lambda L: np.full((len(L), 2, *L.shape[2:]), np.nan, np.float32):
        with pytest.raises(ColorganError, match='do not predict a and b'): Colorizer(net, 32)(grey)
