// The page's side of the worker.

/** Images as the worker hands them over. */
export interface Images {
  /** (count, height, width, channels), row by row. */
  pixels: Uint8Array;
  height: number;
  width: number;
  channels: number;
  /** (count, latent_dim). */
  z: Float32Array;
  /** (count), places in the contract's classes; none without classes. */
  labels?: BigInt64Array;
  /** What onnxruntime took. */
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

/** Take these sessions; a new sampler without its generator leaves none to decode with. */
export const open = (files: { sampler?: Uint8Array; generator?: Uint8Array }) => ask<void>({ kind: "open", ...files });

/** Images start to start + count of a seed; of a class, or with -1 of one drawn for each. */
export const draw = (seed: bigint, start: bigint, count: number, label: bigint) =>
  ask<Images>({ kind: "draw", seed, start, count, label });

/** The image of one z, and of one class where there are classes. */
export const decode = (z: Float32Array, label?: bigint) => ask<Images>({ kind: "decode", z, count: 1, label });
