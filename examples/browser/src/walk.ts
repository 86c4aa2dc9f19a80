import { decode, type Images } from "./drawing";
import { endOf } from "./large";
import type { Shown } from "./main";
import { element, Newest } from "./page";
import { paint, slerp } from "./pictures";

/** One end of a walk: an image and its name. */
export interface End {
  name: string;
  images: Images;
}

/** The slider between two images. generator.onnx turns the z in between into images. */
export class Walk {
  readonly #slider = element("walk-slider", HTMLInputElement);
  readonly #picture = element("walk-picture", HTMLCanvasElement);
  readonly #note = element("walk-note", HTMLElement);
  readonly #ends: { from?: End; to?: End } = {};
  #picked = false;
  readonly #decoding = new Newest(async ({ z, label }: { z: Float32Array; label?: bigint }) =>
    paint(this.#picture, await decode(z, label)),
  );

  constructor() {
    this.#slider.addEventListener("input", () => this.#step());
  }

  set onerror(tell: (error: unknown) => void) {
    this.#decoding.onerror = tell;
  }

  /** Turn the slider on if there is a generator, or off. */
  enable(on: boolean): void {
    this.#slider.disabled = !on;
    this.#note.textContent = on
      ? "Click an image to choose it as an end."
      : "The slider is off. It needs the generator.onnx of this artifact too.";
    this.#step();
  }

  /** Drop both ends, because the artifact has changed. */
  forget(): void {
    delete this.#ends.from;
    delete this.#ends.to;
    this.#picked = false;
  }

  /** Take the first and the last image of the grid as ends, unless the visitor has picked some. */
  offer(shown: Shown): void {
    if (this.#picked) return;
    const count = shown.images.pixels.length / (shown.images.height * shown.images.width * shown.images.channels);
    this.#take("from", endOf(shown, 0));
    this.#take("to", endOf(shown, count - 1));
    this.#step();
  }

  pick(which: "from" | "to", end: End): void {
    this.#picked = true;
    this.#take(which, end);
    this.#step();
  }

  #take(which: "from" | "to", end: End): void {
    this.#ends[which] = end;
    paint(element(`walk-${which}`, HTMLCanvasElement), end.images);
    element(`walk-${which}-name`, HTMLElement).textContent = end.name;
  }

  #step(): void {
    const { from, to } = this.#ends;
    if (!from || !to) return;
    if (this.#slider.disabled) paint(this.#picture, from.images);
    else {
      const z = slerp(from.images.z, to.images.z, this.#slider.valueAsNumber);
      this.#decoding.ask({ z, label: from.images.labels?.[0] }); // the whole walk has one class
    }
  }
}
