// From pixels to a model's input, with the same numbers as `relcompile.pictures.images`: Pillow's resampling in integers.
// A picture is {data, width, height}; data is a Uint8Array of RGB, row by row.

const PRECISION = 22; // bits behind the point of a weight
const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, at: cubic },
};

/** The input of the model, Float32Array (channels, height, width), and the part of the photograph that it sees. */
export function preprocess(photograph, { preprocessing, height, width }) {
  const view = viewOf(photograph, preprocessing, height, width);
  return { view, input: normalise(view, preprocessing) };
}

function viewOf(photograph, { resize: side, crop, interpolation }, height, width) {
  let view = photograph;
  if (side === null && crop === null) view = resize(view, width, height, interpolation);
  if (side !== null) view = resizeShorterSide(view, side, interpolation);
  if (crop !== null) view = centreCrop(view, crop);
  if (view.width !== width || view.height !== height)
    throw new Error(`the photograph becomes ${view.width} x ${view.height} pixels, but the model takes ${width} x ${height}`);
  return view;
}

function normalise(view, { mean, std, channels, scale }) {
  const size = view.width * view.height;
  const input = new Float32Array(mean.length * size);
  const f = Math.fround;
  for (let c = 0; c < mean.length; c++)
    for (let k = 0; k < size; k++) {
      const value = mean.length === 1 ? grey(view.data, 3 * k) : view.data[3 * k + (channels === "BGR" ? 2 - c : c)];
      input[c * size + k] = f(f(f(value / f(scale)) - f(mean[c])) / f(std[c]));
    }
  return input;
}

const grey = (data, k) => (data[k] * 19595 + data[k + 1] * 38470 + data[k + 2] * 7471 + 0x8000) >> 16;

function resizeShorterSide(view, side, interpolation) {
  const shorter = Math.min(view.width, view.height);
  if (shorter === side) return view;
  const [width, height] = [view.width, view.height].map((n) => (n === shorter ? side : Math.trunc((side * n) / shorter)));
  return resize(view, width, height, interpolation);
}

function centreCrop(view, side) {
  if (Math.min(view.width, view.height) < side) throw new Error(`the photograph is smaller than ${side} x ${side} pixels`);
  const [left, top] = [view.width, view.height].map((n) => halfEven((n - side) / 2));
  const data = new Uint8Array(3 * side * side);
  for (let y = 0; y < side; y++) {
    const start = 3 * ((y + top) * view.width + left);
    data.set(view.data.subarray(start, start + 3 * side), 3 * side * y);
  }
  return { data, width: side, height: side };
}

function halfEven(x) {
  const below = Math.floor(x);
  return x - below === 0.5 ? below + (below % 2) : Math.round(x);
}

function resize(view, width, height, interpolation) {
  const filter = FILTERS[interpolation];
  const { width: w, height: h } = view;
  const across = width === w ? view.data : resampled(view.data, h, { from: w, to: width }, { line: 3 * w, step: 3, out: 3 * width }, filter);
  if (height === h) return { data: across, width, height };
  return { data: resampled(across, width, { from: h, to: height }, { line: 3, step: 3 * width, out: 3 }, filter, 3 * width), width, height };
}

/** One axis: `lines` lines, `line` apart, of values `step` apart; those that are written are `out` and `outStep` apart. */
function resampled(data, lines, { from, to }, { line, step, out }, filter, outStep = 3) {
  const result = new Uint8Array(lines * to * 3);
  weights(from, to, filter).forEach(({ first, taps }, position) => {
    for (let row = 0; row < lines; row++)
      for (let c = 0; c < 3; c++) {
        let sum = 1 << (PRECISION - 1);
        for (let k = 0; k < taps.length; k++) sum += data[row * line + (first + k) * step + c] * taps[k];
        result[row * out + position * outStep + c] = Math.min(255, Math.max(0, sum >> PRECISION));
      }
  });
  return result;
}

/** For every value that is written: the first that is read, and the weights, in units of 2^-PRECISION. */
function weights(from, to, filter) {
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const support = filter.support * stretch;
  return Array.from({ length: to }, (_, position) => {
    const centre = (position + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const exact = Array.from({ length: end - first }, (_, k) => filter.at((first + k - centre + 0.5) / stretch));
    const sum = exact.reduce((a, b) => a + b, 0);
    const taps = exact.map((w) => Math.trunc((w / sum) * 2 ** PRECISION + (w / sum < 0 ? -0.5 : 0.5)));
    return { first, taps };
  });
}

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}
