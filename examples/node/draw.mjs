// Draw images from a sampler.onnx. `node draw.mjs` without arguments says how.
import { realpathSync } from "node:fs";
import { readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { crc32, deflateSync } from "node:zlib";
import * as ort from "onnxruntime-web";
import { LIMIT, readArtifact, requireSize } from "../artifact.mjs";

const USAGE = `usage: node draw.mjs ARTIFACT [SEED] [START] [COUNT] [OUTPUT] [LABEL]

ARTIFACT  artifact folder, or its sampler.onnx
SEED      0 to 2^63 - 1 (default: 0)
START     index of the first image (default: 0); START + COUNT is at most 2^63
COUNT     number of images (default: 64)
OUTPUT    a .png file (default: samples.png)
LABEL     name or number of a class; -1, the default, chooses one at random for each image`;

const BATCH = 256;
const MOST_BYTES = 2 ** 30; // of one picture
const GAP = 2; // black pixels around each image

/** A mistake in the command line. */
class UsageError extends Error {}

/**
 * Draw images start to start + count of a seed. Returns pixels, uint8 (n, H, W, C), and z, float32 (n, latent_dim).
 * If the artifact has classes, all images are of the class with the number `label`; -1 chooses one for each image.
 */
export function draw(sampler, seed, start, count, label = -1) {
  const scalar = (value) => new ort.Tensor("int64", [BigInt(value)], []); // a number is exact below 2^53 only
  const feeds = { seed: scalar(seed), start: scalar(start), count: scalar(count) };
  if (sampler.inputNames.includes("label")) feeds.label = scalar(label);
  return sampler.run(feeds);
}

/** A PNG file with a grid of images, row by row: the picture of Python's `save`.  pixels: uint8 (n, H, W, C). */
export function png(pixels, [count, height, width, channels]) {
  const columns = Math.ceil(Math.sqrt(count));
  const rows = Math.ceil(count / columns);
  const size = [columns * (width + GAP) + GAP, rows * (height + GAP) + GAP];
  const stride = 1 + size[0] * channels; // each line begins with a 0: it is not filtered
  const lines = Buffer.alloc(size[1] * stride);
  for (let line = 0; line < count * height; line++) {
    const image = Math.floor(line / height);
    const y = Math.floor(image / columns) * (height + GAP) + GAP + (line % height);
    const x = (image % columns) * (width + GAP) + GAP;
    lines.set(pixels.subarray(line * width * channels, (line + 1) * width * channels), y * stride + 1 + x * channels);
  }
  const uint32 = (...values) => Buffer.from(new Uint32Array(values).buffer).swap32();
  const chunk = (type, content) => {
    const body = Buffer.concat([Buffer.from(type), content]);
    return Buffer.concat([uint32(content.length), body, uint32(crc32(body))]);
  };
  const header = Buffer.concat([uint32(...size), Buffer.from([8, channels === 3 ? 2 : 0, 0, 0, 0])]);
  const chunks = [chunk("IHDR", header), chunk("IDAT", deflateSync(lines)), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([Buffer.from("\x89PNG\r\n\x1a\n", "latin1"), ...chunks]);
}

/** The bytes and the contract of a sampler.onnx that is undamaged. */
async function read(path) {
  try {
    const found = await stat(path);
    if (found.isDirectory()) return await read(join(path, "sampler.onnx"));
    if (!found.isFile()) throw new Error(`${path} is not a plain file.`);
    requireSize(path, found.size);
    const file = await readArtifact(path, new Uint8Array(await readFile(path)));
    if (file.contract.role !== "sampler") throw new Error(`${path} is a generator: give the sampler.onnx beside it.`);
    return file;
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    throw new Error(`${path} is not there. Give an artifact folder, or its sampler.onnx.`);
  }
}

function wholeNumber(name, text, least, most) {
  const value = /^\d{1,19}$/.test(text) ? BigInt(text) : -1n;
  if (value < least || value > most) throw new UsageError(`${name} must be a whole number from ${least} to ${most}, got ${text}`);
  return value;
}

/** The number of a class, as Python's `--label` takes it. */
function labelOf(text, classes) {
  if (text === "-1") return -1n;
  if (classes.length === 0) throw new UsageError(`this artifact has no classes, so it takes no label, got ${text}`);
  if (classes.includes(text)) return BigInt(classes.indexOf(text));
  if (/^\d{1,9}$/.test(text) && Number(text) < classes.length) return BigInt(text);
  const names = classes.slice(0, 20).join(", ") + (classes.length > 20 ? ", …" : "");
  throw new UsageError(`label must be 0 … ${classes.length - 1} or one of ${names}, got ${text}`);
}

async function main(words) {
  const [artifact, seedText = "0", startText = "0", countText = "64", output = "samples.png", labelText = "-1"] = words;
  const seed = wholeNumber("seed", seedText, 0n, LIMIT - 1n);
  const count = Number(wholeNumber("count", countText, 1n, BigInt(MOST_BYTES)));
  const start = wholeNumber("start", startText, 0n, LIMIT - BigInt(count));
  if (!output.toLowerCase().endsWith(".png")) throw new UsageError(`the output must be a .png file, got ${output}`);
  const { bytes, contract } = await read(artifact);
  const [channels, height, width] = contract.image_shape;
  const size = height * width * channels;
  const most = Math.floor(MOST_BYTES / size);
  if (count > most) throw new UsageError(`${count} images are too many for one picture: at most ${most} of this size`);
  const label = labelOf(labelText, contract.classes);
  const sampler = await ort.InferenceSession.create(bytes);
  const pixels = new Uint8Array(count * size);
  for (let done = 0; done < count; done += BATCH) {
    const drawn = await draw(sampler, seed, start + BigInt(done), Math.min(BATCH, count - done), label);
    pixels.set(drawn.pixels.data, done * size);
  }
  await writeFile(output, png(pixels, [count, height, width, channels]));
  const ofClass = label < 0n ? "" : `, class ${contract.classes[Number(label)]}`;
  console.log(`${output}: images ${start} to ${start + BigInt(count) - 1n} of seed ${seed}${ofClass}`);
}

if (process.argv[1] && realpathSync(process.argv[1]) === import.meta.filename) {
  const words = process.argv.slice(2);
  if (words.length === 0 || words.length > 6 || words.some((word) => word === "-h" || word === "--help")) {
    const asked = words.includes("-h") || words.includes("--help");
    (asked ? console.log : console.error)(USAGE);
    process.exit(asked ? 0 : 2);
  }
  await main(words).catch((error) => {
    console.error(`error: ${error.message}`);
    process.exitCode = error instanceof UsageError ? 2 : 1;
  });
}
