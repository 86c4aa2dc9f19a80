// Reads a file of an artifact before a runtime sees it. The browser example and the Node example share this module.

/** Seeds and indices of images are below this number. */
export const LIMIT = 2n ** 63n;

const MOST_BYTES = 2 ** 29; // a hundred times the size of a generator
const MOST_PIXELS = 2 ** 22;
const LONGEST_Z = 2 ** 14;

/**
 * The part of the contract that the examples use. It is JSON under the key `ganpack` in the ONNX file.
 * @typedef {object} Contract
 * @property {"generator" | "sampler"} role
 * @property {string} dataset
 * @property {string} recipe
 * @property {number} step
 * @property {[channels: number, height: number, width: number]} image_shape
 * @property {number} latent_dim
 * @property {string} weights_sha256
 * @property {string[]} classes
 */

/**
 * @typedef {object} ArtifactFile
 * @property {Contract} contract
 * @property {Uint8Array<ArrayBuffer>} bytes
 */

/**
 * Throw an Error if a file is too large to be an artifact.
 * @param {string} name
 * @param {number} size
 */
export function requireSize(name, size) {
  if (size > MOST_BYTES) {
    throw new Error(`${name} has ${size.toLocaleString("en")} bytes: an artifact has at most ${MOST_BYTES.toLocaleString("en")}.`);
  }
}

/**
 * Read the contract of a file, and verify its seal. Throws an Error that a person can read.
 * @param {string} name
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @returns {Promise<ArtifactFile>}
 */
export async function readArtifact(name, bytes) {
  requireSize(name, bytes.length);
  /** @type {Map<string, Uint8Array>} */
  let entries;
  try {
    entries = metadata(bytes);
  } catch {
    throw new Error(`${name} is not an ONNX file, or it is incomplete.`);
  }
  const text = entries.get("ganpack");
  const seal = entries.get("ganpack.sha256");
  if (!text || !seal) throw new Error(`${name} was not written by ganpack: it has no contract and no seal.`);
  await verify(name, bytes, seal);
  return { contract: contractIn(name, new TextDecoder().decode(text)), bytes };
}

/**
 * Compare a file with its seal: the sha256 of the file with zeros in place of the seal. A seal detects damage, not malice.
 * @param {string} name
 * @param {Uint8Array<ArrayBuffer>} bytes
 * @param {Uint8Array} seal
 */
async function verify(name, bytes, seal) {
  if (!globalThis.crypto?.subtle) return; // a page over plain http: the browser computes no sha256
  const unsealed = bytes.slice();
  const start = seal.byteOffset - bytes.byteOffset;
  unsealed.fill("0".charCodeAt(0), start, start + seal.length);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", unsealed));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== new TextDecoder().decode(seal)) {
    throw new Error(`${name} is damaged: its content does not match its seal. Copy it again from its source.`);
  }
}

/** @type {(value: unknown) => boolean} */
const isText = (value) => typeof value === "string";
/** @type {(value: unknown) => boolean} */
const isCount = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
/** @type {(value: unknown) => boolean} */
const isShape = (value) =>
  Array.isArray(value) &&
  value.length === 3 &&
  value.every((each) => isCount(each) && each > 0) &&
  [1, 3].includes(value[0]) &&
  value[0] * value[1] * value[2] <= MOST_PIXELS;

/**
 * What each key of the contract must be.
 * @type {Record<string, [words: string, isGood: (value: unknown) => boolean]>}
 */
const KEYS = {
  role: ['"generator" or "sampler"', (value) => value === "generator" || value === "sampler"],
  dataset: ["a text", isText],
  recipe: ["a text", isText],
  step: ["a whole number", isCount],
  image_shape: ["[1 or 3, height, width] of a reasonable size", isShape],
  latent_dim: [`a whole number from 1 to ${LONGEST_Z}`, (value) => isCount(value) && Number(value) > 0 && Number(value) <= LONGEST_Z],
  weights_sha256: ["a text", isText],
  classes: ["a list of texts", (value) => Array.isArray(value) && value.every(isText)],
};

/**
 * @param {string} name
 * @param {string} text
 * @returns {Contract}
 */
function contractIn(name, text) {
  /** @type {Record<string, unknown> | null} */
  let contract;
  try {
    contract = JSON.parse(text);
  } catch {
    contract = null;
  }
  if (typeof contract !== "object" || contract === null) throw new Error(`${name} has a contract that is not a JSON object.`);
  const version = contract.format_version;
  if (version !== 1) throw new Error(`${name} has artifact format ${shown(version)}, this program reads format 1.`);
  for (const [key, [words, isGood]] of Object.entries(KEYS)) {
    if (!isGood(contract[key])) throw new Error(`${name}: the contract's ${key} must be ${words}, got ${shown(contract[key])}.`);
  }
  return /** @type {Contract} */ (/** @type {unknown} */ (contract));
}

/**
 * A value as a short text.
 * @param {unknown} value
 */
function shown(value) {
  const text = value === undefined ? "nothing" : JSON.stringify(value);
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

/**
 * Read `metadata_props` of an ONNX file, field 14 of its ModelProto. The values are views of the file.
 * @param {Uint8Array} bytes
 */
function metadata(bytes) {
  /** @type {Map<string, Uint8Array>} */
  const entries = new Map();
  for (const [field, content] of fields(bytes)) {
    if (field !== 14 || !content) continue;
    const parts = new Map(fields(content));
    const [key, value] = [parts.get(1), parts.get(2)];
    if (!key || !value) continue;
    const name = new TextDecoder().decode(key);
    if (entries.has(name)) throw new Error("two entries of one name");
    entries.set(name, value);
  }
  return entries;
}

/**
 * The fields of a protobuf message: their number, and their content if it has a length.
 * @param {Uint8Array} bytes
 * @returns {Generator<[number, Uint8Array | undefined]>}
 */
function* fields(bytes) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || scale > 2 ** 63) throw new Error("incomplete");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    /** @type {Uint8Array | undefined} */
    let content;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      content = bytes.subarray(at, at + length);
      at += length;
    } else throw new Error("not protobuf");
    if (at > bytes.length) throw new Error("incomplete");
    yield [Math.floor(tag / 8), content];
  }
}
