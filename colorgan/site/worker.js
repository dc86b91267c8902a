// Decodes, colorizes and encodes photos, one after the other, away from the page, so that it never stalls. Nothing is sent anywhere.
import {join, luminance, pad, shrink, smallShape} from './colour.js';
import {spread} from './hints.js';

const PREVIEW = 1400, photos = new Map();
const tell = (id, more, transfer = []) => postMessage({id, ...more}, transfer);

async function download(name, got) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name} cannot be fetched (${answer.status})`);
  const parts = [], reader = answer.body.getReader();
  for (let r; !(r = await reader.read()).done;) parts.push(r.value), got(r.value.length);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

let network;
/** The network and its facts, fetched when the first photo arrives. */
function load() {
  network ??= (async () => {
    const facts = await (await fetch(new URL('network.json', import.meta.url))).json();
    let have = 0;
    const got = n => tell(null, {progress: Math.min(1, (have += n) / facts.bytes)});
    const [wasm, graph] = await Promise.all([download('ort.wasm', got), download('network.onnx', got)]);
    if (self.caches) caches.open(`colorgan-${facts.version}`) // the rest is kept by sw.js
      .then(c => Promise.all([c.put(new URL('ort.wasm', import.meta.url), new Response(wasm)), c.put(new URL('network.onnx', import.meta.url), new Response(graph))]))
      .then(() => tell(null, {kept: true})).catch(() => {});
    const ort = await import('./ort.js');
    Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: wasm.buffer});
    return {...facts, ort, session: await ort.InferenceSession.create(graph, {executionProviders: ['wasm']})};
  })();
  network.catch(() => { network = undefined; });
  return network;
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
  const {ort, session, size, stride} = await load();
  const {image: {data, width, height}} = pixels(bitmap), [rows, columns] = smallShape(height, width, size);
  const L = shrink(luminance(data), height, width, rows, columns), padded = pad(L, rows, columns, stride);
  const {ab} = await session.run({L: new ort.Tensor('float32', padded.L, [1, 1, padded.h, padded.w])});
  return {L, ab: ab.data, rows, columns, stride: padded.w, width, height};
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
      tell(id, {after, width: seen.width, height: seen.height, seconds: (performance.now() - begun) / 1000});
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
