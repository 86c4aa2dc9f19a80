// The page: a seed, its images, one of them large, a walk between two, and files that are dropped.
import { readArtifact, type ArtifactFile, type Contract } from "./artifact";
import { draw, open, type Images } from "./drawing";
import { acceptFiles, type DroppedFile } from "./drop";
import { Gallery } from "./gallery";
import { Large } from "./large";
import { element, Newest, problem } from "./page";
import { Walk } from "./walk";

const COUNT = 64;
const LIMIT = 2n ** 63n;

const seedField = element("seed", HTMLInputElement);
const startField = element("start", HTMLInputElement);
const classField = element("class", HTMLSelectElement);
const speed = element("speed", HTMLElement);

const walk = new Walk();
const large = new Large({ from: (picked) => walk.pick("from", picked), to: (picked) => walk.pick("to", picked) });
const gallery = new Gallery(COUNT, (i) => large.show(shown, i));

/** What the grid shows. */
export interface Shown {
  seed: bigint;
  start: bigint;
  images: Images;
  /** Their names, for the labels. */
  classes: string[];
}
let shown: Shown;
/** The weights that are loaded, by their contract. */
let loaded: Contract | undefined;

// Of what is typed quickly, only the newest is drawn.
const drawing = new Newest(async ({ seed, start, label }: { seed: bigint; start: bigint; label: string }) => {
  const images = await draw(seed, start, COUNT, BigInt(label || -1));
  shown = { seed, start, images, classes: loaded!.classes };
  gallery.show(shown);
  walk.offer(shown);
  const rate = Math.round(COUNT / Math.max(images.seconds, 1e-4));
  const milliseconds = (images.seconds * 1000).toFixed(1);
  speed.textContent = `${COUNT} images in ${milliseconds} ms: ${rate.toLocaleString("en")} images/s`;
  history.replaceState(null, "", `#seed=${seed}&start=${start}${label && `&class=${label}`}`);
});

function redraw(): void {
  const seed = read(seedField, LIMIT - 1n);
  const start = read(startField, LIMIT - BigInt(COUNT));
  if (seed === undefined || start === undefined) {
    const [name, most] = (seed === undefined ? ["A seed", LIMIT - 1n] : ["The first image", LIMIT - BigInt(COUNT)]) as [string, bigint];
    problem(`${name} is a whole number from 0 to ${most.toLocaleString("en")}.`);
  } else if (loaded) {
    problem("");
    drawing.ask({ seed, start, label: classField.value });
  }
}

function read(field: HTMLInputElement, most: bigint): bigint | undefined {
  const text = field.value.trim();
  const value = /^\d+$/.test(text) ? BigInt(text) : undefined;
  const good = value !== undefined && value <= most;
  field.setAttribute("aria-invalid", String(!good));
  return good ? value : undefined;
}

function move(images: number): void {
  const start = read(startField, LIMIT - 1n) ?? 0n;
  const moved = start + BigInt(images);
  const last = LIMIT - BigInt(COUNT);
  startField.value = String(moved < 0n ? 0n : moved > last ? last : moved);
  redraw();
}

/** Draw from other files; what fails leaves the page as it was. */
async function use(files: DroppedFile[]): Promise<void> {
  const read = await Promise.all(files.map(({ name, bytes }) => readArtifact(name, bytes)));
  const found: Record<string, ArtifactFile> = Object.fromEntries(read.map((file) => [file.contract.role, file]));
  const { sampler, generator } = found;
  const weights = sampler?.contract.weights_sha256 ?? loaded?.weights_sha256;
  if (!weights) throw new Error("generator.onnx only decodes: drop its sampler.onnx with it.");
  if (generator && generator.contract.weights_sha256 !== weights) {
    throw new Error("This generator.onnx belongs to another artifact than the sampler.onnx that draws.");
  }
  await open({ sampler: sampler?.bytes, generator: generator?.bytes });
  if (sampler) {
    loaded = sampler.contract;
    describe(loaded);
    offerClasses(loaded.classes);
    walk.forget();
  }
  if (sampler || generator) walk.enable(generator !== undefined);
  redraw();
}

/** The choice of a class, where there are classes. */
function offerClasses(classes: string[]): void {
  const wanted = classField.value || (new URLSearchParams(location.hash.slice(1)).get("class") ?? "");
  classField.replaceChildren(new Option("drawn for each", ""), ...classes.map((name, i) => new Option(name, String(i))));
  classField.value = wanted in classes ? wanted : "";
  element("class-field", HTMLElement).hidden = classes.length === 0;
}

function describe(contract: Contract): void {
  const [channels, height, width] = contract.image_shape;
  const facts = {
    Data: contract.dataset,
    Recipe: `${contract.recipe}, ${contract.step.toLocaleString("en")} steps`,
    Images: `${width} × ${height}, ${channels === 1 ? "grey" : "colour"}`,
    ...(contract.classes.length > 0 && { Classes: contract.classes.join(", ") }),
    Weights: contract.weights_sha256.slice(0, 12),
  };
  const parts = Object.entries(facts).map(([name, value]) => {
    const row = document.createElement("div");
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    [term.textContent, text.textContent] = [name, value];
    row.append(term, text);
    return row;
  });
  element("contract", HTMLElement).replaceChildren(...parts);
}

async function fetched(name: string): Promise<DroppedFile | undefined> {
  const response = await fetch(`artifact/${name}`);
  if (!response.ok) return undefined;
  return { name, bytes: new Uint8Array(await response.arrayBuffer()) };
}

/** The artifact beside the page: the grid as soon as it can be drawn, the walk when it can. */
async function begin(): Promise<void> {
  const sampler = await fetched("sampler.onnx");
  if (!sampler) {
    speed.textContent = "There is no artifact beside this page yet: drop one, or choose its files.";
    return;
  }
  await use([sampler]);
  const ours = loaded;
  const generator = await fetched("generator.onnx");
  if (generator && loaded === ours) await use([generator]); // unless another was dropped meanwhile
}

function fromAddress(): void {
  const wanted = new URLSearchParams(location.hash.slice(1));
  seedField.value = wanted.get("seed") ?? seedField.value;
  startField.value = wanted.get("start") ?? startField.value;
  if (loaded) classField.value = wanted.get("class") ?? "";
}

const tell = (error: unknown) => problem(error instanceof Error ? error.message : String(error));
drawing.onerror = tell;
walk.onerror = tell;

seedField.addEventListener("input", redraw);
startField.addEventListener("input", redraw);
classField.addEventListener("input", redraw);
element("place", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  redraw();
});
element("another", HTMLButtonElement).addEventListener("click", () => {
  seedField.value = String(crypto.getRandomValues(new Uint32Array(1))[0]);
  startField.value = "0";
  redraw();
});
element("earlier", HTMLButtonElement).addEventListener("click", () => move(-COUNT));
element("later", HTMLButtonElement).addEventListener("click", () => move(COUNT));
window.addEventListener("hashchange", () => {
  fromAddress();
  redraw();
});
acceptFiles((files) => use(files).catch(tell), tell);

fromAddress();
begin().catch(tell);
// Only where the browser trusts the address: https, or this machine.
navigator.serviceWorker?.register("offline.js").catch(() => undefined);
