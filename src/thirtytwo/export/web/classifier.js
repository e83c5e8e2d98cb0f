// Classify images in the browser with the model of `model.js`, as `thirtytwo predict` does.
//
//   const classifier = await thirtytwo.load();
//   const { top, confidence, known, predictions } = await classifier.classify(file);
//
// `file` is a File or Blob with an image; of one that cannot be read, the error's message says why. Plain scripts and no
// modules, so that pages also work from a folder.
"use strict";
const thirtytwo = (() => {
  const GAP = 3; // images are first averaged to this many times the size that is needed, then resampled
  const LEAST = 2; // pixels on each side, as everywhere in thirtytwo
  const MOST = 16_000_000; // pixels that every browser can draw at once
  let loading;

  function load() {
    return (loading ??= start());
  }

  async function start() {
    const { script, wasm, model, info } = globalThis.thirtytwoFiles;
    const place = URL.createObjectURL(new Blob([await unpack(script)], { type: "text/javascript" }));
    const ort = await import(place);
    URL.revokeObjectURL(place);
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = await unpack(wasm);
    const session = await ort.InferenceSession.create(await unpack(model));
    return { info, classify: (file) => classify(ort, session, info, file) };
  }

  // Base64 of a gzip file → its content.
  async function unpack(text) {
    const bytes = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
    const content = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(content).arrayBuffer());
  }

  async function classify(ort, session, info, file) {
    const size = info.input_size;
    const images = new ort.Tensor("uint8", square(await decode(file), size, info.resize), [1, size, size, 3]);
    const { probabilities, logits, known_score } = await session.run({ images });
    const predictions = [...probabilities.data]
      .map((confidence, index) => ({ class: info.classes[index], confidence }))
      .sort((one, other) => other.confidence - one.confidence);
    const score = info.unknown_score === "max_logit" ? Math.max(...logits.data) : known_score.data[0];
    const known = info.unknown_threshold === null || score >= info.unknown_threshold;
    return { top: predictions[0].class, confidence: predictions[0].confidence, known, predictions };
  }

  // The upright image over white: { width, height, data }, three bytes a pixel.
  async function decode(file) {
    if (!file.size) throw new Error("The file is empty.");
    let bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" }).catch((cause) => {
      throw new Error("This browser cannot read it as an image.", { cause });
    });
    if (Math.min(bitmap.width, bitmap.height) < LEAST) {
      throw new Error(`It has ${bitmap.width}×${bitmap.height} pixels; expected at least ${LEAST}×${LEAST}.`);
    }
    const shrink = Math.sqrt(MOST / (bitmap.width * bitmap.height));
    if (shrink < 1) {
      const resizeWidth = Math.floor(bitmap.width * shrink);
      bitmap = await createImageBitmap(bitmap, { resizeWidth, resizeQuality: "high" });
    }
    const { width, height } = bitmap;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const { data: rgba } = context.getImageData(0, 0, width, height);
    const data = new Uint8Array(3 * width * height);
    for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
      data[to] = rgba[from];
      data[to + 1] = rgba[from + 1];
      data[to + 2] = rgba[from + 2];
    }
    return { width, height, data };
  }

  // The model's input: the central square (crop), all of it (squash), or all of it between black borders (pad).
  function square(image, size, rule) {
    const { width, height } = image;
    if (rule === "squash") return resample(image, size, size).data;
    if (rule === "crop") {
      const side = Math.min(width, height);
      return resample(crop(image, (width - side) >> 1, (height - side) >> 1, side), size, size).data;
    }
    const scale = size / Math.max(width, height);
    const inner = resample(image, Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale)));
    const data = new Uint8Array(3 * size * size);
    const top = (size - inner.height) >> 1;
    const left = (size - inner.width) >> 1;
    for (let row = 0; row < inner.height; row++) {
      const line = inner.data.subarray(3 * row * inner.width, 3 * (row + 1) * inner.width);
      data.set(line, 3 * ((top + row) * size + left));
    }
    return data;
  }

  function crop({ width, data }, left, top, side) {
    const part = new Uint8Array(3 * side * side);
    for (let row = 0; row < side; row++) {
      const start = 3 * ((top + row) * width + left);
      part.set(data.subarray(start, start + 3 * side), 3 * row * side);
    }
    return { width: side, height: side, data: part };
  }

  // Bicubic with antialiasing, as Pillow's resize with reducing_gap.
  function resample(image, width, height) {
    if (image.width === width && image.height === height) return image;
    const across = Math.floor(image.width / width / GAP) || 1;
    const down = Math.floor(image.height / height / GAP) || 1;
    const reduced = across > 1 || down > 1 ? reduce(image, across, down) : image;
    const wide = { width, height: reduced.height, data: new Uint8Array(3 * width * reduced.height) };
    filter(reduced, wide, weights(reduced.width, image.width / across, width), 3, 3 * reduced.width, 3 * width);
    const made = { width, height, data: new Uint8Array(3 * width * height) };
    filter(wide, made, weights(reduced.height, image.height / down, height), 3 * width, 3, 3);
    return made;
  }

  // Means of blocks; those at the right and lower edge may be smaller.
  function reduce(image, across, down) {
    const width = Math.ceil(image.width / across);
    const height = Math.ceil(image.height / down);
    const data = new Uint8Array(3 * width * height);
    for (let y = 0; y < height; y++) {
      const lastRow = Math.min((y + 1) * down, image.height);
      for (let x = 0; x < width; x++) {
        const lastColumn = Math.min((x + 1) * across, image.width);
        const count = (lastRow - y * down) * (lastColumn - x * across);
        for (let channel = 0; channel < 3; channel++) {
          let sum = 0;
          for (let row = y * down; row < lastRow; row++) {
            for (let column = x * across; column < lastColumn; column++) {
              sum += image.data[3 * (row * image.width + column) + channel];
            }
          }
          data[3 * (y * width + x) + channel] = Math.floor(sum / count + 0.5);
        }
      }
    }
    return { width, height, data };
  }

  // For each of `to` outputs: the first of `from` inputs that it depends on, and their weights. The outputs cover `span`
  // inputs, which is not always a whole number.
  function weights(from, span, to) {
    const scale = span / to;
    const stretch = Math.max(scale, 1);
    return Array.from({ length: to }, (_, index) => {
      const center = (index + 0.5) * scale;
      const first = Math.max(0, Math.trunc(center - 2 * stretch + 0.5));
      const last = Math.min(from, Math.trunc(center + 2 * stretch + 0.5));
      const raw = Array.from({ length: last - first }, (_, at) => cubic((at + first - center + 0.5) / stretch));
      const sum = raw.reduce((one, other) => one + other, 0);
      return { first, values: raw.map((value) => value / sum) };
    });
  }

  function cubic(at) {
    const x = Math.abs(at);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  }

  // Weighted means along an axis whose neighbors are `step` bytes apart; lines begin `stride` bytes apart.
  function filter(source, target, taps, step, stride, targetStride) {
    const lines = target.data.length / 3 / taps.length;
    for (let line = 0; line < lines; line++) {
      taps.forEach(({ first, values }, index) => {
        for (let channel = 0; channel < 3; channel++) {
          let sum = 0;
          let at = line * stride + first * step + channel;
          for (const value of values) {
            sum += value * source.data[at];
            at += step;
          }
          target.data[line * targetStride + index * step + channel] = Math.min(255, Math.max(0, Math.floor(sum + 0.5)));
        }
      });
    }
  }

  return { load };
})();
