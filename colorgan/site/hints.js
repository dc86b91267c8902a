// Colours that a visitor places on a photo, spread over the network's prediction as far as the next edge: chapter colour/02_hints, in the browser.
import {gamma, lightRoot, WHITE, XYZ_FROM_RGB} from './colour.js';

const EDGE = 12, REACH = .7;
const bell = Array.from({length: 9}, (_, k) => Math.exp(-((k - 4) ** 2) / 2)), under = bell.reduce((a, b) => a + b);
const within = (i, n) => Math.min(n - 1, Math.max(0, i));

/** a and b of a colour such as '#c03030'. */
export function chromaOf(colour) {
  const rgb = [1, 3, 5].map(i => gamma[parseInt(colour.slice(i, i + 2), 16)]);
  const [x, y, z] = XYZ_FROM_RGB.map((row, i) => lightRoot(row.reduce((sum, k, j) => sum + k * rgb[j], 0) / WHITE[i]));
  return [500 * (x - y), 200 * (y - z)];
}

/** L of h × w pixels, blurred by a Gaussian whose deviation is one pixel. */
function blurred(L, h, w) {
  const once = new Float32Array(L.length), twice = new Float32Array(L.length);
  const sum = f => bell.reduce((s, v, k) => s + v / under * f(k - 4), 0);
  for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) once[i * w + j] = sum(k => L[within(i + k, h) * w + j]);
  for (let i = 0; i < h; i++) for (let j = 0; j < w; j++) twice[i * w + j] = sum(k => once[i * w + within(j + k, w)]);
  return twice;
}

/** What a step costs at each pixel: more where the lightness changes. */
function costs(L, h, w) {
  const soft = blurred(L, h, w), flat = 1 / Math.min(h, w), at = (i, j) => soft[within(i, h) * w + within(j, w)];
  return Float64Array.from({length: h * w}, (_, n) => {
    const i = Math.floor(n / w), j = n % w;
    const down = (at(i + 1, j) - at(i - 1, j)) / 2, across = (at(i, j + 1) - at(i, j - 1)) / 2;
    return flat + (down ** 2 + across ** 2) / EDGE ** 2;
  });
}

/** How far each pixel is from one of them by the cheapest path: sweeps, forth and back, until nothing gets nearer. */
export function distance(L, h, w, row, column) {
  const cost = costs(L, h, w), far = new Float64Array(h * w).fill(Infinity);
  far[row * w + column] = 0;
  const sweep = back => {
    let nearer = false;
    for (let m = 0; m < h * w; m++) {
      const n = back ? h * w - 1 - m : m, i = Math.floor(n / w), j = n % w, s = back ? 1 : -1;
      const from = (di, dj) => {
        if (i + di < 0 || i + di >= h || j + dj < 0 || j + dj >= w) return;
        const o = n + di * w + dj, d = far[o] + (cost[o] + cost[n]) / 2 * (di && dj ? Math.SQRT2 : 1);
        if (d < far[n]) far[n] = d, nearer = true;
      };
      from(s, -1), from(s, 0), from(s, 1), from(0, s);
    }
    return nearer;
  };
  while (sweep(false) | sweep(true));
  return far;
}

/** The prediction with `strength` times its chroma and the hints spread over it. A hint is {x, y, colour}, in pixels of the photo.
 *  `seen` keeps how far each pixel is from each place, because only colour and strength change often. */
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
