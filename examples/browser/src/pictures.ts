import type { Images } from "./drawing";

/** Paint image i onto a canvas, pixel by pixel. CSS enlarges the canvas. */
export function paint(canvas: HTMLCanvasElement, images: Images, i = 0): void {
  const { height, width, channels } = images;
  const size = height * width * channels;
  const source = images.pixels.subarray(i * size, (i + 1) * size);
  const picture = new ImageData(width, height);
  for (let p = 0; p < height * width; p++) {
    for (let c = 0; c < 3; c++) picture.data[4 * p + c] = source[p * channels + (c % channels)]!;
    picture.data[4 * p + 3] = 255;
  }
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d")!.putImageData(picture, 0, 0);
}

/** Interpolate on a sphere, because normally distributed z lie near a sphere. */
export function slerp(a: Float32Array, b: Float32Array, t: number): Float32Array {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0);
  const cosine = dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const angle = Math.acos(Math.min(1, Math.max(-1, cosine)));
  const sine = Math.sin(angle);
  const [u, v] = sine < 1e-6 ? [1 - t, t] : [Math.sin((1 - t) * angle) / sine, Math.sin(t * angle) / sine];
  return a.map((value, i) => u * value + v * b[i]!);
}
