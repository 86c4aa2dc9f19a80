// Runs onnxruntime in a thread of its own, so that the page reacts while images are generated.
import * as ort from "onnxruntime-web/wasm";
import type { Images, Request } from "./drawing";

ort.env.wasm.numThreads = 1; // several threads need headers that not every server sends

let sampler: ort.InferenceSession | undefined;
let generator: ort.InferenceSession | undefined;

const work = {
  async open(request: { sampler?: Uint8Array; generator?: Uint8Array }): Promise<void> {
    // Open both before replacing any: if one fails, nothing changes.
    const draws = request.sampler && (await ort.InferenceSession.create(request.sampler));
    const decodes = request.generator && (await ort.InferenceSession.create(request.generator));
    if (draws) {
      [sampler, generator] = [draws, undefined];
      await work.draw({ seed: 0n, start: 0n, count: 1, label: -1n }); // the first run is slow
    }
    if (decodes) generator = decodes;
  },

  async draw(request: { seed: bigint; start: bigint; count: number; label: bigint }): Promise<Images> {
    const scalar = (value: bigint) => new ort.Tensor("int64", [value], []);
    const feeds: Record<string, ort.Tensor> = {
      seed: scalar(request.seed),
      start: scalar(request.start),
      count: scalar(BigInt(request.count)),
    };
    if (sampler!.inputNames.includes("label")) feeds.label = scalar(request.label);
    const begin = performance.now();
    const { pixels, z, labels } = await sampler!.run(feeds);
    const seconds = (performance.now() - begin) / 1000;
    return { ...images(pixels!), z: z!.data as Float32Array, labels: labels?.data as BigInt64Array | undefined, seconds };
  },

  async decode(request: { z: Float32Array; count: number; label?: bigint }): Promise<Images> {
    const { z, count, label } = request;
    const feeds: Record<string, ort.Tensor> = { z: new ort.Tensor("float32", z, [count, z.length / count]) };
    if (label !== undefined) feeds.labels = new ort.Tensor("int64", new BigInt64Array(count).fill(label), [count]);
    const begin = performance.now();
    const { pixels } = await generator!.run(feeds);
    return { ...images(pixels!), z: request.z, seconds: (performance.now() - begin) / 1000 };
  },
};

function images(pixels: ort.Tensor): { pixels: Uint8Array; height: number; width: number; channels: number } {
  const [, height, width, channels] = pixels.dims as [number, number, number, number];
  return { pixels: pixels.data as Uint8Array, height, width, channels };
}

// One request at a time: a session cannot run twice at once.
let last: Promise<void> = Promise.resolve();
self.onmessage = ({ data }: MessageEvent<Request>) => {
  last = last.then(async () => {
    try {
      const done = await work[data.kind](data as never);
      self.postMessage({ id: data.id, done });
    } catch (error) {
      self.postMessage({ id: data.id, error: error instanceof Error ? error.message : String(error) });
    }
  });
};
