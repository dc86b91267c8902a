// Colors that a visitor places on a photo, spread over the network's prediction as far as the next edge: chapter colour/02_hints, in the browser.
import {gamma, lightRoot, WHITE, XYZ_FROM_RGB} from './colour.js';

const EDGE = 12, REACH = .7;
const bell = Array.from({length: 9}, (_, k) => Math.exp(-((k - 4) ** 2) / 2)), under = bell.reduce((a, b) => a + b);
const within = (i, n) => Math.min(n - 1, Math.max(0, i));

/** a and b of a color such as '#c03030'. */
export function chromaOf(colour) {
  const rgb = [1, 3, 5].map(i => gamma[parseInt(colour.slice(i, i + 2), 16)]);
  const [x, y, z] = XYZ_FROM_RGB.map((row, i) => lightRoot(row.reduce((sum, k, j) => sum + k * rgb[j], 0) / WHITE[i]));
  return [500 * (x - y), 200 * (y - z)];
}

/** L of h × w pixels, blurred by a Gaussian whose deviation is one pixel. */
function blurred(L, h, w) {
  const once = new Float32Array(L.length), twice = new Float32Array(L.length);
  for (let i = 0; i < h; i++) for (let k = -4; k <= 4; k++) {
    const from = within(i + k, h) * w, v = bell[k + 4] / under;
    for (let j = 0; j < w; j++) once[i * w + j] += v * L[from + j];
  }
  for (let n = 0; n < L.length; n++) for (let k = -4, j = n % w; k <= 4; k++) twice[n] += bell[k + 4] / under * once[n - j + within(j + k, w)];
  return twice;
}

/** What a step costs at each pixel: more where the lightness changes. */
function costs(L, h, w) {
  const soft = blurred(L, h, w), cost = new Float64Array(h * w).fill(1 / Math.min(h, w));
  for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) {
    const down = (soft[within(i + 1, h) * w + j] - soft[within(i - 1, h) * w + j]) / 2;
    const across = (soft[i * w + within(j + 1, w)] - soft[i * w + within(j - 1, w)]) / 2;
    cost[i * w + j] += (down ** 2 + across ** 2) / EDGE ** 2;
  }
  return cost;
}

/** Numbers with what belongs to them, the smallest on top: a binary heap. */
class Heap {
  keys = [];
  items = [];
  push(key, item) {
    const {keys, items} = this;
    let k = keys.length;
    for (let up; k && keys[up = (k - 1) >> 1] > key; k = up) keys[k] = keys[up], items[k] = items[up];
    keys[k] = key, items[k] = item;
  }
  pop() {
    const {keys, items} = this, top = [keys[0], items[0]], key = keys.pop(), item = items.pop(), n = keys.length;
    if (!n) return top;
    let k = 0;
    for (let next; (next = 2 * k + 1) < n; k = next) {
      if (next + 1 < n && keys[next + 1] < keys[next]) next++;
      if (keys[next] >= key) break;
      keys[k] = keys[next], items[k] = items[next];
    }
    keys[k] = key, items[k] = item;
    return top;
  }
}

/** How far each pixel is from one of them by the cheapest path, diagonal steps included: Dijkstra's algorithm. */
export function distance(L, h, w, row, column) {
  const cost = costs(L, h, w), far = new Float64Array(h * w).fill(Infinity), near = new Heap();
  far[row * w + column] = 0;
  near.push(0, row * w + column);
  while (near.keys.length) {
    const [d, n] = near.pop(), i = Math.floor(n / w), j = n % w;
    if (d > far[n]) continue;
    for (let y = Math.max(0, i - 1); y <= Math.min(h - 1, i + 1); y++) for (let x = Math.max(0, j - 1); x <= Math.min(w - 1, j + 1); x++) {
      const o = y * w + x, to = d + (cost[n] + cost[o]) / 2 * (y !== i && x !== j ? Math.SQRT2 : 1);
      if (to < far[o]) near.push(far[o] = to, o);
    }
  }
  return far;
}

/** The prediction with `strength` times its chroma and the hints spread over it. A hint is {x, y, colour}, in pixels of the photo.
 *  `seen` keeps how far each pixel is from each place, because only color and strength change often. */
export function spread(seen, strength, hints) {
  const {L, ab, rows, columns, stride, width, height} = seen, n = rows * columns, near = seen.near ??= new Map();
  const total = new Float32Array(n).fill(1), out = new Float32Array(2 * n);
  for (let c = 0; c < 2; c++) for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) out[c * n + i * columns + j] = strength * ab[c * ab.length / 2 + i * stride + j];
  for (const {x, y, colour} of hints) {
    const row = Math.floor(y * rows / height), column = Math.floor(x * columns / width), place = row * columns + column, [a, b] = chromaOf(colour);
    if (!near.has(place)) near.set(place, Float32Array.from(distance(L, rows, columns, row, column), d => Math.max(d / REACH, .01) ** -4));
    near.get(place).forEach((v, k) => { total[k] += v, out[k] += v * a, out[n + k] += v * b; });
  }
  for (let k = 0; k < n; k++) out[k] /= total[k], out[n + k] /= total[k];
  return {...seen, ab: out, stride: columns};
}
