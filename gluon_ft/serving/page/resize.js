// From a picture's file to the network's input, as gluon_ft's data/images/decode.py and transforms.py prepare it.
const MOST_EDGE = 16384, MOST_PIXELS = 1e8;

// {width, height, channels, data}: upright, what is transparent white, colour profiles not applied.
const decoded = async (file, channels) => {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  } catch (error) {
    throw new Error("not an image that this browser can read");
  }
  const { width, height } = bitmap;
  if (Math.max(width, height) > MOST_EDGE || width * height > MOST_PIXELS) {
    bitmap.close();
    throw new Error(`${width} x ${height} pixels, more than a page can hold`);
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * channels);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    const [r, g, b] = [rgba[from], rgba[from + 1], rgba[from + 2]];
    if (channels === 1) {
      data[to++] = (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
    } else {
      data[to++] = r;
      data[to++] = g;
      data[to++] = b;
    }
  }
  return { width, height, channels, data };
};

// A large JPEG is decoded at a reduced scale, which libjpeg makes of the means of 2 x 2, 4 x 4 or 8 x 8 pixels.
const reduction = (image, resize) => {
  const short = Math.min(image.width, image.height);
  let factor = 1;
  while (resize && factor < 8 && (short >= 4 * factor * resize || short === 2 * factor * resize)) factor *= 2;
  return factor;
};

const reduced = (image, factor) => {
  if (factor === 1) return image;
  const { channels, data } = image, width = Math.ceil(image.width / factor), height = Math.ceil(image.height / factor);
  const out = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y++) {
    const bottom = Math.min((y + 1) * factor, image.height);
    for (let x = 0; x < width; x++) {
      const right = Math.min((x + 1) * factor, image.width), count = (bottom - y * factor) * (right - x * factor);
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let row = y * factor; row < bottom; row++) {
          for (let column = x * factor; column < right; column++) sum += data[(row * image.width + column) * channels + channel];
        }
        out[(y * width + x) * channels + channel] = Math.round(sum / count);
      }
    }
  }
  return { width, height, channels, data: out };
};

// OpenCV's weights: for each result from `first` on, the source positions (beyond the edge: the edge) and their weights.
const COEFFICIENTS = {
  bilinear: x => [1 - x, x],
  bicubic: x => {
    const a = -0.75, y = x + 1, z = 1 - x;
    const outer = ((a * y - 5 * a) * y + 8 * a) * y - 4 * a, one_ = ((a + 2) * x - (a + 3)) * x * x + 1, two = ((a + 2) * z - (a + 3)) * z * z + 1;
    return [outer, one_, two, 1 - outer - one_ - two];
  },
  lanczos: x => {
    const raw = [...Array(8).keys()].map(i => {
      const at = Math.PI * (x + 3 - i);
      return Math.abs(at) < 1e-6 ? 1 : 4 * Math.sin(at) * Math.sin(at / 4) / (at * at);
    });
    const sum = raw.reduce((a, b) => a + b);
    return raw.map(weight => weight / sum);
  },
};
const FRACTION = 2048;  // of OpenCV's weights for 8 bits

const weights = (method, full, wanted, first, count, shrinks) => {
  const scale = 1 / (wanted / full), inside = at => Math.min(Math.max(at, 0), full - 1);
  return [...Array(count).keys()].map(i => {
    const to = first + i;
    if (method === "nearest") return { at: [Math.min(Math.floor(to * scale), full - 1)], by: [1] };
    if (method === "area" && shrinks) {
      const from = to * scale, end = Math.min(from + scale, full), at = [], by = [];
      for (let place = Math.floor(from); place < end - 1e-6; place++) {
        at.push(inside(place));
        by.push((Math.min(place + 1, end) - Math.max(place, from)) / (end - from));
      }
      return { at, by };
    }
    let place = Math.floor((to + 0.5) * scale - 0.5), rest = Math.fround((to + 0.5) * scale - 0.5) - place;
    if (method === "area") {
      place = Math.floor(to * scale);
      rest = to + 1 - (place + 1) / scale;
      rest = rest <= 0 ? 0 : rest - Math.floor(rest);
    }
    if (method === "area" || method === "bilinear") {
      if (place < 0) [place, rest] = [0, 0];
      if (place >= full - 1) [place, rest] = [full - 1, 0];
    }
    const by = COEFFICIENTS[method === "area" ? "bilinear" : method](rest);
    return { at: by.map((_, tap) => inside(place + tap - (by.length / 2 - 1))), by: by.map(weight => Math.round(weight * FRACTION) / FRACTION) };
  });
};

// The part of the image, resized to `width` x `height`, that begins at (left, top) and has `columns` x `rows` pixels.
const part = (image, width, height, method, left, top, columns, rows) => {
  const { channels, data } = image;
  if (image.width === width && image.height === height) method = "nearest";
  const shrinks = image.width >= width && image.height >= height;
  const across = weights(method, image.width, width, left, columns, shrinks), down = weights(method, image.height, height, top, rows, shrinks);
  const lowest = Math.min(...down.map(each => Math.min(...each.at))), highest = Math.max(...down.map(each => Math.max(...each.at)));
  const between = new Float32Array((highest - lowest + 1) * columns * channels);
  for (let row = lowest, to = 0; row <= highest; row++) {
    for (const { at, by } of across) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (let tap = 0; tap < at.length; tap++) sum += by[tap] * data[(row * image.width + at[tap]) * channels + channel];
        between[to++] = sum;
      }
    }
  }
  const out = new Uint8Array(rows * columns * channels);
  let to = 0;
  for (const { at, by } of down) {
    for (let place = 0; place < columns * channels; place++) {
      let sum = 0;
      for (let tap = 0; tap < at.length; tap++) sum += by[tap] * between[(at[tap] - lowest) * columns * channels + place];
      out[to++] = Math.min(Math.max(Math.round(sum), 0), 255);
    }
  }
  return { width: columns, height: rows, channels, data: out };
};

// The shorter edge, then the centre; what is smaller than the crop is enlarged first, in float32 as there.
const cropped = (image, how) => {
  const { size, interpolation } = how, whole = (w, h) => { image = part(image, w, h, interpolation, 0, 0, w, h); };
  let { width, height } = image;
  if (how.resize) {
    [width, height] = height > width ? [how.resize, Math.floor(how.resize * height / width)] : [Math.floor(how.resize * width / height), how.resize];
  }
  const enlarged = (edge, other) => Math.trunc(Math.fround(Math.fround(size / edge) * other));
  if (height < size) {
    [width, height] = [enlarged(height, width), size];
    if (width < size) whole(width, height);
  }
  if (width < size) [width, height] = [size, enlarged(width, height)];
  return part(image, width, height, interpolation, Math.floor((width - size) / 2), Math.floor((height - size) / 2), size, size);
};

const prepared = async (file, how) => {
  const channels = how.channel_order === "gray" ? 1 : 3, start = new Uint8Array(await file.slice(0, 3).arrayBuffer());
  const isJpeg = start[0] === 0xff && start[1] === 0xd8 && start[2] === 0xff;
  const image = await decoded(file, channels);
  return cropped(isJpeg ? reduced(image, reduction(image, how.resize || 0)) : image, how).data;
};
