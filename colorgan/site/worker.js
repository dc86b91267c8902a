// Decodes, paints and encodes photos, one after the other, away from the page, so that it never stalls. Nothing is sent anywhere.
import * as ort from './ort.js';
import {join, luminance, pad, shrink, smallShape} from './colour.js';

const PREVIEW = 1400, photos = new Map();
const tell = (id, more, transfer = []) => postMessage({id, ...more}, transfer);

async function download(name, got) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name} cannot be fetched (${answer.status})`);
  const parts = [], reader = answer.body.getReader();
  for (let r; !(r = await reader.read()).done;) parts.push(r.value), got(r.value.length);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

let network;
/** The network and its facts, fetched when the first photo arrives. */
function load() {
  network ??= (async () => {
    const facts = await (await fetch('network.json')).json();
    let have = 0;
    const got = n => tell(null, {progress: Math.min(1, (have += n) / facts.bytes)});
    const [wasm, graph] = await Promise.all([download('ort.wasm', got), download('network.onnx', got)]);
    Object.assign(ort.env.wasm, {numThreads: 1, wasmBinary: wasm.buffer});
    return {...facts, session: await ort.InferenceSession.create(graph, {executionProviders: ['wasm']})};
  })();
  network.catch(() => { network = undefined; });
  return network;
}

/** RGBA pixels of a photo, upright, its long side at most `most`. */
async function pixels(file, most = Infinity) {
  const bitmap = await createImageBitmap(file), k = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(bitmap.width * k)), Math.max(1, Math.round(bitmap.height * k)));
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.imageSmoothingQuality = 'high';
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  return {canvas, context, image: context.getImageData(0, 0, canvas.width, canvas.height)};
}

/** What the network paints for a photo, and how large the photo is. */
async function chroma(file) {
  const {session, size, stride} = await load();
  const {image: {data, width, height}} = await pixels(file), [rows, columns] = smallShape(height, width, size);
  const padded = pad(shrink(luminance(data), height, width, rows, columns), rows, columns, stride);
  const {ab} = await session.run({L: new ort.Tensor('float32', padded.L, [1, 1, padded.h, padded.w])});
  return {ab: ab.data, rows, columns, stride: padded.w, width, height};
}

/** A file of the photo in colour: a preview, or all of it. */
async function paint({file, seen}, strength, most, type) {
  const {canvas, context, image} = await pixels(file, most);
  join(luminance(image.data), image.height, image.width, seen.ab, seen.rows, seen.columns, seen.stride, strength, image.data);
  context.putImageData(image, 0, 0);
  return canvas.convertToBlob({type, quality: .95});
}

const jobs = {
  async open(id, {file}) {
    try { (await createImageBitmap(file)).close(); }
    catch { throw new Error(`${file.name} is not a photo that this browser can read: try a JPEG, PNG or WebP`); }
    await load();
    const begun = performance.now(), photo = {file, seen: await chroma(file)};
    photos.set(id, photo);
    const after = await paint(photo, 1, PREVIEW, 'image/jpeg');
    tell(id, {after, width: photo.seen.width, height: photo.seen.height, seconds: (performance.now() - begun) / 1000});
  },
  async tint(id, {strength}) { tell(id, {after: await paint(photos.get(id), strength, PREVIEW, 'image/jpeg')}); },
  async save(id, {strength}) {
    const photo = photos.get(id), type = photo.file.type === 'image/jpeg' ? 'image/jpeg' : 'image/png';
    tell(id, {saved: await paint(photo, strength, Infinity, type)});
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
