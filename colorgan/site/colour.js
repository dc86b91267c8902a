// From the pixels of a photo to the small lightness that the network sees, and from its small chroma back to the photo: chapter colour/01_chroma, in the browser.

export const WHITE = [0.95047, 1, 1.08883];
export const XYZ_FROM_RGB = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]];
const Y_MAX = 65535, STEPS = 2 ** 14, CORNER = 0.2068966, SLOPE = 1 / 7.787;
const table = (n, f) => Float64Array.from({length: n}, (_, i) => f(i));

function inverse(m) {
  const c = m.map((_, i) => m.map((_, j) => m[(j + 1) % 3][(i + 1) % 3] * m[(j + 2) % 3][(i + 2) % 3] - m[(j + 1) % 3][(i + 2) % 3] * m[(j + 2) % 3][(i + 1) % 3]));
  const det = m[0].reduce((s, v, j) => s + v * c[j][0], 0);
  return c.map(row => row.map(v => v / det));
}

export const gamma = table(256, i => i / 255 > 0.04045 ? ((i / 255 + 0.055) / 1.055) ** 2.4 : i / 255 / 12.92);
const share = XYZ_FROM_RGB[1].map(k => k / (XYZ_FROM_RGB[1][0] + XYZ_FROM_RGB[1][1] + XYZ_FROM_RGB[1][2]));
const red = gamma.map(g => Math.round(g * share[0] * Y_MAX)), blue = gamma.map(g => Math.round(g * share[2] * Y_MAX));
const green = gamma.map((g, i) => Math.round(g * Y_MAX) - red[i] - blue[i]);
/** Lab's f of an amount of light, 0 to 1. */
export const lightRoot = t => t > 0.008856 ? Math.cbrt(t) : 7.787 * t + 16 / 116;
const root = table(Y_MAX + 1, i => lightRoot(i / Y_MAX));
const level = Uint8Array.from({length: STEPS + 2}, (_, i) => {
  const t = Math.min(i / STEPS, 1);
  return Math.round(255 * (t > 0.0031308 ? 1.055 * t ** (1 / 2.4) - 0.055 : 12.92 * t));
});
const deviation = inverse(XYZ_FROM_RGB).map(row => [row[0] * WHITE[0] * STEPS, row[2] * WHITE[2] * STEPS]);

/** Luminance, 0 to 65,535, of RGBA pixels. */
export function luminance(rgba) {
  const y = new Uint16Array(rgba.length / 4);
  for (let i = 0, j = 0; i < y.length; i++, j += 4) y[i] = red[rgba[j]] + green[rgba[j + 1]] + blue[rgba[j + 2]];
  return y;
}

/** Rows and columns in which a network sees a photo of h × w pixels. */
export function smallShape(h, w, size) {
  const k = Math.min(size / Math.min(h, w), 4 * size / Math.max(h, w)), even = x => Math.round(x) - (x % 1 === .5 && Math.round(x) % 2 ? 1 : 0);
  return [Math.max(1, even(h * k)), Math.max(1, even(w * k))];
}

const linear = d => Math.max(0, 1 - d);
const cubic = d => d < 1 ? (1.5 * d - 2.5) * d * d + 1 : d < 2 ? ((2.5 - .5 * d) * d - 4) * d + 2 : 0;

/** For each of m pixels, the first of the n it is made of and the weights from there on. */
function resizing(n, m, kernel) {
  const wide = Math.max(1, n / m), reach = (kernel === linear ? 1 : 2) * wide;
  return Array.from({length: m}, (_, i) => {
    const centre = (i + .5) * (n / m) - .5, first = Math.max(0, Math.ceil(centre - reach)), last = Math.min(n - 1, Math.floor(centre + reach));
    const w = Array.from({length: last - first + 1}, (_, k) => kernel(Math.abs(centre - first - k) / wide)), sum = w.reduce((a, b) => a + b, 0);
    return {first, w: w.map(v => v / sum)};
  });
}

/** Lightness, 0 to 100, of a luminance of h × w pixels, made smaller to rows × columns. */
export function shrink(y, h, w, rows, columns) {
  const across = resizing(w, columns, linear), down = resizing(h, rows, linear), out = new Float32Array(rows * columns), line = new Float64Array(columns);
  const takers = Array.from({length: h}, () => []);
  down.forEach(({first, w: weights}, r) => weights.forEach((v, k) => v && takers[first + k].push([r, v])));
  for (let i = 0; i < h; i++) {
    if (!takers[i].length) continue;
    across.forEach(({first, w: weights}, c) => {
      let sum = 0;
      for (let k = 0, j = i * w + first; k < weights.length; k++, j++) sum += weights[k] * root[y[j]];
      line[c] = 116 * sum - 16;
    });
    for (const [r, v] of takers[i]) for (let c = 0; c < columns; c++) out[r * columns + c] += v * line[c];
  }
  return out;
}

/** L, reflected at the bottom and on the right until its sides are multiples of 32. */
export function pad(L, h, w, multiple = 32) {
  const up = n => Math.ceil(n / multiple) * multiple, H = up(h), W = up(w), out = new Float32Array(H * W);
  const back = (i, n) => { const period = Math.max(2 * (n - 1), 1), t = i % period; return Math.min(t, period - t); };
  for (let i = 0; i < H; i++) for (let j = 0; j < W; j++) out[i * W + j] = L[back(i, h) * w + back(j, w)];
  return {L: out, h: H, w: W};
}

/** Writes the photo of luminance y and chroma ab into RGBA pixels; colors that do not exist keep lightness and hue and lose chroma.
 *  ab holds a, then b, of rows × columns points; its left upper corner, rows × columns as the network saw the photo, covers the photo. */
export function join(y, h, w, ab, rows, columns, stride, strength, rgba) {
  const area = ab.length / 2, across = resizing(columns, w, cubic), down = resizing(rows, h, cubic);
  const widened = (from, scale) => Array.from({length: rows}, (_, r) => {
    const line = new Float32Array(w);
    across.forEach(({first, w: v}, c) => { for (let k = 0; k < v.length; k++) line[c] += scale * v[k] * ab[from + r * stride + first + k]; });
    return line;
  });
  const a = widened(0, strength / 500), b = widened(area, strength / 200), A = new Float64Array(w), B = new Float64Array(w);
  const [[rx, rz], [gx, gz], [bx, bz]] = deviation;
  for (let i = 0; i < h; i++) {
    A.fill(0), B.fill(0);
    down[i].w.forEach((v, k) => { const p = a[down[i].first + k], q = b[down[i].first + k]; for (let j = 0; j < w; j++) A[j] += v * p[j], B[j] += v * q[j]; });
    for (let j = 0, n = i * w; j < w; j++, n++) {
      const f = root[y[n]], Y = y[n] / Y_MAX, fx = f + A[j], fz = f - B[j];
      const x = (fx > CORNER ? fx * fx * fx : (fx - CORNER) * SLOPE + CORNER ** 3) - Y, z = (fz > CORNER ? fz * fz * fz : (fz - CORNER) * SLOPE + CORNER ** 3) - Y;
      const r = rx * x + rz * z, g = gx * x + gz * z, bl = bx * x + bz * z, grey = Y * STEPS;
      const t = Math.min(1, (STEPS - grey) / Math.max(r, g, bl, 1e-3), grey / Math.max(-Math.min(r, g, bl), 1e-3));
      rgba[4 * n] = level[grey + t * r + .5 | 0], rgba[4 * n + 1] = level[grey + t * g + .5 | 0], rgba[4 * n + 2] = level[grey + t * bl + .5 | 0];
    }
  }
}
