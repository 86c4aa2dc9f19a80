import type { Shown } from "./main";
import { element } from "./page";
import { paint } from "./pictures";
import type { End } from "./walk";

/** A dialog with one image of the grid, enlarged, with its seed and index. */
export class Large {
  readonly #dialog = element("large", HTMLDialogElement);
  readonly #picture = element("large-picture", HTMLCanvasElement);
  readonly #name = element("large-name", HTMLElement);
  #shown: Shown | undefined;
  #i = 0;

  constructor(pick: { from: (end: End) => void; to: (end: End) => void }) {
    const on = (id: string, work: () => void) => element(id, HTMLButtonElement).addEventListener("click", work);
    on("large-close", () => this.#dialog.close());
    on("large-earlier", () => this.#move(-1));
    on("large-later", () => this.#move(1));
    for (const end of ["from", "to"] as const) {
      on(`large-${end}`, () => {
        pick[end](this.#end());
        this.#dialog.close();
      });
    }
    this.#dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft") this.#move(-1);
      if (event.key === "ArrowRight") this.#move(1);
    });
    // A click beside the dialog closes it, as Escape does.
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close();
    });
  }

  show(shown: Shown, i: number): void {
    [this.#shown, this.#i] = [shown, i];
    const name = this.#end().name;
    paint(this.#picture, shown.images, i);
    this.#picture.setAttribute("aria-label", name);
    this.#name.textContent = name;
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #move(step: number): void {
    const shown = this.#shown!;
    const count = shown.images.pixels.length / (shown.images.height * shown.images.width * shown.images.channels);
    this.show(shown, (this.#i + step + count) % count);
  }

  #end(): End {
    return endOf(this.#shown!, this.#i);
  }
}

/** The name of an image of the grid. */
export function nameOf({ seed, start, classes, images }: Shown, i: number): string {
  const label = images.labels?.[i];
  const of = label === undefined ? "" : `: ${classes[Number(label)] ?? label}`;
  return `Image ${start + BigInt(i)} of seed ${seed}${of}`;
}

/** An image of the grid, as an end of the walk. */
export function endOf({ seed, start, classes, images }: Shown, i: number): End {
  const count = images.pixels.length / (images.height * images.width * images.channels);
  const length = images.z.length / count;
  const size = images.pixels.length / count;
  return {
    name: nameOf({ seed, start, classes, images }, i),
    images: {
      ...images,
      pixels: images.pixels.slice(i * size, (i + 1) * size),
      z: images.z.slice(i * length, (i + 1) * length),
      labels: images.labels?.slice(i, i + 1),
    },
  };
}
