// Draw images from a sampler.onnx: node draw.mjs ARTIFACT/sampler.onnx SEED START COUNT OUT.png [LABEL]
import { readFile, writeFile } from "node:fs/promises";
import { crc32, deflateSync } from "node:zlib";
import * as ort from "onnxruntime-web";

/**
 * Images start to start + count of a seed: pixels, uint8 (n, H, W, C), and z, float32 (n, latent_dim).
 * Where the artifact has classes, of the one with this number; -1 draws one for each image.
 */
export function draw(sampler, seed, start, count, label = -1) {
  const scalar = (value) => new ort.Tensor("int64", [BigInt(value)], []); // numbers end at 2^53
  const feeds = { seed: scalar(seed), start: scalar(start), count: scalar(count) };
  if (sampler.inputNames.includes("label")) feeds.label = scalar(label);
  return sampler.run(feeds);
}

/** A grid of images, uint8 (n, H, W, C), row by row, as a PNG file. */
export function png({ data, dims: [count, height, width, channels] }) {
  const columns = Math.ceil(Math.sqrt(count));
  const size = new Uint32Array([columns * width, Math.ceil(count / columns) * height]);
  const stride = 1 + size[0] * channels; // each row begins with a 0: no filter
  const rows = Buffer.alloc(size[1] * stride);
  for (let line = 0; line < count * height; line++) {
    const image = Math.floor(line / height);
    const y = Math.floor(image / columns) * height + (line % height);
    const pixels = data.subarray(line * width * channels, (line + 1) * width * channels);
    rows.set(pixels, y * stride + 1 + (image % columns) * width * channels);
  }
  const uint32 = (...values) => Buffer.from(new Uint32Array(values).buffer).swap32();
  const chunk = (type, content) => {
    const body = Buffer.concat([Buffer.from(type), content]);
    return Buffer.concat([uint32(content.length), body, uint32(crc32(body))]);
  };
  const header = Buffer.concat([uint32(...size), Buffer.from([8, channels === 3 ? 2 : 0, 0, 0, 0])]);
  const chunks = [chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...chunks]);
}

if (process.argv[1] === import.meta.filename) {
  const [file, seed = 0, start = 0, count = 64, output = "samples.png", label = -1] = process.argv.slice(2);
  const sampler = await ort.InferenceSession.create(await readFile(file));
  await writeFile(output, png((await draw(sampler, seed, start, count, label)).pixels));
}
