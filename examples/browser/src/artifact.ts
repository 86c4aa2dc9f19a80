// What an artifact's file says about itself, read from its bytes before a runtime sees them.

/** The part of the contract that the page uses; it is JSON under the key `ganpack` in the ONNX file. */
export interface Contract {
  format_version: number;
  role: string;
  dataset: string;
  recipe: string;
  step: number;
  image_shape: [number, number, number];
  latent_dim: number;
  weights_sha256: string;
  classes: string[];
}

export interface ArtifactFile {
  contract: Contract;
  bytes: Uint8Array<ArrayBuffer>;
}

/** Read a file of an artifact; an Error that a person can read for anything else. */
export async function readArtifact(name: string, bytes: Uint8Array<ArrayBuffer>): Promise<ArtifactFile> {
  let entries: Map<string, Uint8Array>;
  try {
    entries = metadata(bytes);
  } catch {
    throw new Error(`${name} is no ONNX file, or cut short.`);
  }
  const text = entries.get("ganpack");
  const seal = entries.get("ganpack.sha256");
  if (!text || !seal) throw new Error(`${name} was not written by ganpack: it has no contract and seal.`);
  await verify(name, bytes, seal);
  const contract = JSON.parse(new TextDecoder().decode(text)) as Contract;
  if (contract.format_version !== 1) {
    throw new Error(`${name} is of artifact format ${contract.format_version}, this page reads 1.`);
  }
  return { contract, bytes };
}

/** The seal is the file's sha256, taken with zeros in its own place. It tells damage, not malice. */
async function verify(name: string, bytes: Uint8Array<ArrayBuffer>, seal: Uint8Array): Promise<void> {
  if (!globalThis.crypto.subtle) return; // plain http from another machine: browsers give no sha256
  const unsealed = bytes.slice();
  unsealed.fill("0".charCodeAt(0), seal.byteOffset - bytes.byteOffset, seal.byteOffset - bytes.byteOffset + seal.length);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", unsealed));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex !== new TextDecoder().decode(seal)) {
    throw new Error(`${name} is damaged: its content does not match its seal. Copy it again from its source.`);
  }
}

/** `metadata_props` of an ONNX file, field 14 of its ModelProto; values are views of the file. */
function metadata(bytes: Uint8Array): Map<string, Uint8Array> {
  const entries = new Map<string, Uint8Array>();
  for (const [field, content] of fields(bytes)) {
    if (field !== 14 || !content) continue;
    const parts = new Map(fields(content));
    const [key, value] = [parts.get(1), parts.get(2)];
    if (key && value) entries.set(new TextDecoder().decode(key), value);
  }
  return entries;
}

/** Fields of a protobuf message: number, and content where it has a length. */
function* fields(bytes: Uint8Array): Generator<[number, Uint8Array | undefined]> {
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at++];
      if (byte === undefined || scale > 2 ** 63) throw new Error("cut short");
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const tag = varint();
    const kind = tag % 8;
    let content: Uint8Array | undefined;
    if (kind === 0) varint();
    else if (kind === 1) at += 8;
    else if (kind === 5) at += 4;
    else if (kind === 2) {
      const length = varint();
      content = bytes.subarray(at, at + length);
      at += length;
    } else throw new Error("not protobuf");
    if (at > bytes.length) throw new Error("cut short");
    yield [Math.floor(tag / 8), content];
  }
}
