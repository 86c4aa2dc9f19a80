import { nameOf } from "./large";
import type { Shown } from "./main";
import { element } from "./page";
import { paint } from "./pictures";

const COLUMNS = 8;
const STEPS: Record<string, number> = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -COLUMNS, ArrowDown: COLUMNS };

/** The grid: a button for each image. The Tab key reaches one button, and the arrow keys move to the others. */
export class Gallery {
  readonly #buttons: HTMLButtonElement[];

  constructor(count: number, choose: (i: number) => void) {
    this.#buttons = Array.from({ length: count }, (_, i) => {
      const button = document.createElement("button");
      button.type = "button";
      button.tabIndex = i === 0 ? 0 : -1;
      button.append(document.createElement("canvas"));
      button.addEventListener("click", () => choose(i));
      button.addEventListener("focus", () => this.#reach(i));
      button.addEventListener("keydown", (event) => this.#move(event, i));
      return button;
    });
    element("grid", HTMLElement).append(...this.#buttons);
  }

  show(shown: Shown): void {
    this.#buttons.forEach((button, i) => {
      paint(button.firstElementChild as HTMLCanvasElement, shown.images, i);
      button.setAttribute("aria-label", nameOf(shown, i));
    });
  }

  #reach(i: number): void {
    this.#buttons.forEach((button, j) => (button.tabIndex = i === j ? 0 : -1));
  }

  #move(event: KeyboardEvent, i: number): void {
    const ends: Record<string, number> = { Home: 0, End: this.#buttons.length - 1 };
    const target = this.#buttons[ends[event.key] ?? i + (STEPS[event.key] ?? NaN)];
    if (!target) return;
    event.preventDefault();
    target.focus();
  }
}
