// Sends requests to the worker, and receives its answers.

/** Images, as the worker sends them. */
export interface Images {
  /** (count, height, width, channels), row by row. */
  pixels: Uint8Array;
  height: number;
  width: number;
  channels: number;
  /** (count, latent_dim). */
  z: Float32Array;
  /** (count), indices in the contract's classes; undefined if there are no classes. */
  labels?: BigInt64Array;
  /** Time that onnxruntime needed. */
  seconds: number;
}

export type Request = { id: number } & (
  | { kind: "open"; sampler?: Uint8Array; generator?: Uint8Array }
  | { kind: "draw"; seed: bigint; start: bigint; count: number; label: bigint }
  | { kind: "decode"; z: Float32Array; count: number; label?: bigint }
);

type Asked = Request extends infer R ? (R extends Request ? Omit<R, "id"> : never) : never;

const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
const waiting = new Map<number, { resolve: (done: never) => void; reject: (error: Error) => void }>();
let asked = 0;

worker.onmessage = ({ data }: MessageEvent<{ id: number; done?: never; error?: string }>) => {
  const asker = waiting.get(data.id);
  waiting.delete(data.id);
  if (data.error === undefined) asker?.resolve(data.done as never);
  else asker?.reject(new Error(data.error));
};
worker.onerror = () => {
  for (const { reject } of waiting.values()) reject(new Error("onnxruntime-web could not be started."));
  waiting.clear();
};

function ask<T>(request: Asked): Promise<T> {
  return new Promise((resolve, reject) => {
    waiting.set(++asked, { resolve, reject });
    worker.postMessage({ id: asked, ...request });
  });
}

/** Load these files. A new sampler also removes the generator of the old one. */
export const open = (files: { sampler?: Uint8Array; generator?: Uint8Array }) => ask<void>({ kind: "open", ...files });

/** Draw images start to start + count of a seed. label: a class, or -1 for a random class for each image. */
export const draw = (seed: bigint, start: bigint, count: number, label: bigint) =>
  ask<Images>({ kind: "draw", seed, start, count, label });

/** Draw the image of one z, of a class if there are classes. */
export const decode = (z: Float32Array, label?: bigint) => ask<Images>({ kind: "decode", z, count: 1, label });
