/** Find the element with an id; index.html must have it. */
export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`index.html has no ${kind.name} called ${id}`);
  return found;
}

/** What a message is about: what the visitor typed, drawing, the visitor's files, or the artifact beside the page. */
type Subject = "place" | "drawing" | "files" | "artifact";
const problems = new Map<Subject, string>();

/** Show what is wrong with a subject until it is replaced or cleared by "". Other subjects keep their messages. */
export function problem(subject: Subject, text: string): void {
  problems.delete(subject);
  if (text) problems.set(subject, text);
  const place = element("problem", HTMLElement);
  place.textContent = [...problems.values()].reverse().join(" ");
  place.hidden = problems.size === 0;
}

/** What an error says. */
export const words = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Works on one value at a time. Of the values that come meanwhile, only the newest is kept. */
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
