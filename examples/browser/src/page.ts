/** The element of an id, which index.html has. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} called ${id}`);
  return found;
}

/** Say what is wrong; nothing hides it. */
export function problem(text: string): void {
  const place = element("problem", HTMLElement);
  place.textContent = text;
  place.hidden = text === "";
}

/** Does one thing at a time: while one is done, the newest that is asked for waits, the rest is dropped. */
export class Newest<T> {
  onerror: (error: unknown) => void = () => undefined;
  #waiting: { value: T } | undefined;
  #busy = false;

  constructor(private readonly work: (value: T) => Promise<void>) {}

  ask(value: T): void {
    this.#waiting = { value };
    if (!this.#busy) void this.#go();
  }

  async #go(): Promise<void> {
    this.#busy = true;
    while (this.#waiting) {
      const { value } = this.#waiting;
      this.#waiting = undefined;
      await this.work(value).catch(this.onerror);
    }
    this.#busy = false;
  }
}
