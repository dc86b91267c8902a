// Decodes, colorizes and encodes photos, one after the other, away from the page, so that it never stalls. Nothing is sent anywhere.
import {join, luminance, pad, shrink, smallShape} from './colour.js';
import {spread} from './hints.js';

const PREVIEW = 1400, photos = new Map();
const here = name => new URL(name, import.meta.url);
const tell = (id, more, transfer = []) => postMessage({id, ...more}, transfer);

async function download(name, got) {
  const answer = await fetch(here(name));
  if (!answer.ok) throw new Error(`${name} cannot be fetched (${answer.status})`);
  const parts = [], reader = answer.body.getReader();
  for (let r; !(r = await reader.read()).done;) parts.push(r.value), got(r.value.length);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

/** Whether to run on a graphics card: the runtime for WebGPU needs a browser that can suspend WebAssembly, too.
 *  `?gpu=no` in the page's address does without; `?gpu=any` also takes a card that is only simulated, as the tests do. */
async function hasCard() {
  const wanted = new URLSearchParams(self.name).get('gpu');
  if (wanted === 'no' || !WebAssembly.Suspending) return false;
  const adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  return !!adapter && (wanted === 'any' || !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter));
}

let network;
/** The network and its facts, fetched when the first photo arrives. */
function load() {
  network ??= (async () => {
    const facts = await (await fetch(here('network.json'))).json(), gpu = await hasCard(), runtime = gpu ? 'ort-gpu' : 'ort';
    const heavy = [`${runtime}.wasm`, 'network.onnx'], total = heavy.reduce((sum, name) => sum + facts.bytes[name], 0);
    let have = 0;
    const got = n => tell(null, {progress: Math.min(1, (have += n) / total)});
    const files = await Promise.all(heavy.map(name => download(name, got))), [wasm, graph] = files;
    if (self.caches) caches.open(`colorgan-${facts.version}`) // the rest is kept by sw.js
      .then(c => Promise.all(heavy.map((name, i) => c.put(here(name), new Response(files[i])))))
      .then(() => tell(null, {kept: true})).catch(() => {});
    const ort = await import(`./${runtime}.js`);
    ort.env.logLevel = 'error';
    Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: wasm.buffer});
    const start = by => ort.InferenceSession.create(graph, {executionProviders: [by], logSeverityLevel: 3});
    const loaded = {...facts, Tensor: ort.Tensor, by: 'WebAssembly', async leaveCard() {
      this.session = await start('wasm');
      this.by = 'WebAssembly';
    }};
    loaded.session = gpu && await start('webgpu').catch(() => null);
    if (loaded.session) loaded.by = 'WebGPU';
    else await loaded.leaveCard();
    return loaded;
  })();
  network.catch(() => { network = undefined; });
  return network;
}

/** What the network predicts for L. If the graphics card fails or answers nonsense, the processor does it, and all that follow. */
async function predict(network, L) {
  const ask = async () => (await network.session.run({L})).ab.data;
  if (network.by === 'WebGPU') {
    const ab = await ask().catch(() => null);
    if (ab?.every(Number.isFinite)) return ab;
    await network.leaveCard();
  }
  return ask();
}

/** A photo, decoded and upright. */
async function decode(file) {
  try { return await createImageBitmap(file); }
  catch { throw new Error(`${file.name} is not a photo that this browser can read: try a JPEG, PNG or WebP`); }
}

/** RGBA pixels of a decoded photo, its long side at most `most`. */
function pixels(bitmap, most = Infinity) {
  const k = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * k)), Math.max(1, Math.round(bitmap.height * k)));
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return {canvas, context, image: context.getImageData(0, 0, canvas.width, canvas.height)};
}

/** What the network predicts for a decoded photo, and how large the photo is. */
async function chroma(bitmap) {
  const network = await load(), {size, stride, Tensor} = network;
  const {image: {data, width, height}} = pixels(bitmap), [rows, columns] = smallShape(height, width, size);
  const L = shrink(luminance(data), height, width, rows, columns), padded = pad(L, rows, columns, stride);
  const ab = await predict(network, new Tensor('float32', padded.L, [1, 1, padded.h, padded.w]));
  return {L, ab, rows, columns, stride: padded.w, width, height, by: network.by};
}

/** A file of the decoded photo with the chroma that was `seen` in it, as strong as wanted, and with the visitor's hints: a preview, or all of it. */
function paint(bitmap, seen, {strength, hints}, most, type) {
  const {canvas, context, image} = pixels(bitmap, most);
  const {ab, rows, columns, stride} = spread(seen, strength, hints);
  join(luminance(image.data), image.height, image.width, ab, rows, columns, stride, 1, image.data);
  context.putImageData(image, 0, 0);
  return canvas.convertToBlob({type, quality: .95});
}

/** The same for a photo that was opened before. */
async function repaint({file, seen}, look, most, type) {
  const bitmap = await decode(file);
  try { return await paint(bitmap, seen, look, most, type); }
  finally { bitmap.close(); }
}

const jobs = {
  async open(id, {file}) {
    let begun = performance.now();
    const bitmap = await decode(file), decoding = performance.now() - begun;
    try {
      await load();
      begun = performance.now() - decoding;
      const seen = await chroma(bitmap), after = await paint(bitmap, seen, {strength: 1, hints: []}, PREVIEW, 'image/jpeg');
      photos.set(id, {file, seen});
      tell(id, {after, width: seen.width, height: seen.height, by: seen.by, seconds: (performance.now() - begun) / 1000});
    } finally { bitmap.close(); }
  },
  async repaint(id, {look}) { tell(id, {after: await repaint(photos.get(id), look, PREVIEW, 'image/jpeg')}); },
  async save(id, {look}) {
    const photo = photos.get(id), type = photo.file.type === 'image/jpeg' ? 'image/jpeg' : 'image/png';
    tell(id, {saved: await repaint(photo, look, Infinity, type)});
  },
  async close(id) { photos.delete(id); },
};

let last = Promise.resolve();
onmessage = ({data: {job, id, ...more}}) => {
  last = last.then(() => jobs[job](id, more)).catch(e => {
    const large = e instanceof RangeError || /allocat|memory/i.test(e.message);
    tell(id, {error: large ? 'this photo is too large for this browser: make it smaller, or use the command line' : e.message});
  });
};
tell(null, {ready: true});
