// From a small map to colours over a picture, as jaxcam.upsample, unit_range and overlay have it.

// For each of `to` pixels the two nearest of `from` values, and the share of the second.
function neighbours(from, to) {
  const first = new Int32Array(to), second = new Int32Array(to), share = new Float32Array(to);
  for (let i = 0; i < to; i++) {
    const place = Math.min(Math.max(((i + 0.5) * from) / to - 0.5, 0), from - 1);
    first[i] = Math.floor(place);
    second[i] = Math.min(first[i] + 1, from - 1);
    share[i] = place - first[i];
  }
  return { first, second, share };
}

// Linear between pixel centres, edge values repeated.
function upsample(map, height, width) {
  const rows = neighbours(map.height, height), columns = neighbours(map.width, width);
  const found = new Float32Array(height * width);
  const row = new Float32Array(map.width);
  for (let y = 0; y < height; y++) {
    const above = rows.first[y] * map.width, below = rows.second[y] * map.width;
    for (let x = 0; x < map.width; x++) {
      row[x] = mixed(map.values[above + x], map.values[below + x], rows.share[y]);
    }
    for (let x = 0; x < width; x++) {
      found[y * width + x] = mixed(row[columns.first[x]], row[columns.second[x]], columns.share[x]);
    }
  }
  return found;
}

function mixed(a, b, share) {
  return a + (b - a) * share;
}

function rangeOf(values) {
  let low = Infinity, high = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (values[i] < low) low = values[i];
    if (values[i] > high) high = values[i];
  }
  return { low, high };
}

// Zero in the middle, where the sign means something.
function centred({ low, high }) {
  const limit = Math.max(Math.abs(low), Math.abs(high));
  return { low: -limit, high: limit };
}

// Values as shares of a range, in [0, 1]; without a range all are 0.
function shares(values, { low, high }) {
  const found = new Float32Array(values.length);
  if (!(high > low)) return found;
  for (let i = 0; i < values.length; i++) {
    found[i] = Math.min(Math.max((values[i] - low) / (high - low), 0), 1);
  }
  return found;
}

// Colours shares and lays them over pixels RGBA, in place, which round by themselves. Between two
// of the 256 colours is interpolated, as jaxcam.overlay does.
function blend(pixels, found, colours, opacity) {
  const over = Float32Array.from(colours, (colour) => opacity * colour);
  const rest = 1 - opacity;
  for (let i = 0; i < found.length; i++) {
    const before = Math.min(Math.floor(255 * found[i]), 254), share = 255 * found[i] - before;
    for (let channel = 0; channel < 3; channel++) {
      const low = over[3 * before + channel], high = over[3 * before + 3 + channel];
      const at = 4 * i + channel;
      pixels[at] = rest * pixels[at] + low + share * (high - low);
    }
  }
}

// Draws the edge of what is above a threshold: white inside, black outside, seen on any picture.
function outline(pixels, found, width, threshold) {
  const height = found.length / width;
  const above = (x, y) => found[y * width + x] >= threshold;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const here = above(x, y);
      const differs =
        (x > 0 && above(x - 1, y) !== here) || (x < width - 1 && above(x + 1, y) !== here) ||
        (y > 0 && above(x, y - 1) !== here) || (y < height - 1 && above(x, y + 1) !== here);
      if (differs) pixels.fill(here ? 255 : 0, 4 * (y * width + x), 4 * (y * width + x) + 3);
    }
  }
}
