// The page: a seed, its images, one image enlarged, a walk between two images, and dropped files.
import { LIMIT, readArtifact } from "../../artifact.mjs";
import { draw, open, type Images } from "./drawing";
import { acceptFiles, type DroppedFile } from "./drop";
import { Gallery } from "./gallery";
import { Large } from "./large";
import { element, Newest, problem, words } from "./page";
import { Walk } from "./walk";

type ArtifactFile = Awaited<ReturnType<typeof readArtifact>>;
type Contract = ArtifactFile["contract"];

const COUNT = 64;
const MOST_CLASSES = 20; // in the description; the choice has all of them

const seedField = element("seed", HTMLInputElement);
const startField = element("start", HTMLInputElement);
const classField = element("class", HTMLSelectElement);
const speed = element("speed", HTMLElement);

const walk = new Walk();
const large = new Large({ from: (picked) => walk.pick("from", picked), to: (picked) => walk.pick("to", picked) });
const gallery = new Gallery(COUNT, (i) => large.show(shown, i));

/** The images in the grid. */
export interface Shown {
  seed: bigint;
  start: bigint;
  images: Images;
  /** The names of the classes. */
  classes: string[];
}
let shown: Shown;
/** The contract of the loaded sampler. */
let loaded: Contract | undefined;

// If the visitor types quickly, only the newest seed is shown.
const drawing = new Newest(async ({ seed, start, label }: { seed: bigint; start: bigint; label: string }) => {
  const images = await draw(seed, start, COUNT, BigInt(label || -1));
  shown = { seed, start, images, classes: loaded!.classes };
  problem("drawing", "");
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
    problem("place", `${name} is a whole number from 0 to ${most.toLocaleString("en")}.`);
  } else if (loaded) {
    problem("place", "");
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

let using: Promise<void> = Promise.resolve();

/**
 * Load files, one call after the other, and show their images. If this fails, the page stays as it was.
 * wanted: whether the files are still wanted, once it is their turn.
 */
function use(files: DroppedFile[], wanted: () => boolean = () => true): Promise<void> {
  const used = using.then(() => (wanted() ? load(files) : undefined));
  using = used.catch(() => undefined);
  return used;
}

async function load(files: DroppedFile[]): Promise<void> {
  const read = await Promise.all(files.map(({ name, bytes }) => readArtifact(name, bytes)));
  const found: Record<string, ArtifactFile> = Object.fromEntries(read.map((file) => [file.contract.role, file]));
  const { sampler, generator } = found;
  const weights = sampler?.contract.weights_sha256 ?? loaded?.weights_sha256;
  if (!weights) throw new Error("generator.onnx alone cannot show a seed. Drop the sampler.onnx of the same artifact with it.");
  if (generator && generator.contract.weights_sha256 !== weights) {
    throw new Error("This generator.onnx belongs to another artifact than the loaded sampler.onnx.");
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

/** Show the choice of a class if there are classes. */
function offerClasses(classes: string[]): void {
  const wanted = classField.value || (new URLSearchParams(location.hash.slice(1)).get("class") ?? "");
  classField.replaceChildren(new Option("random for each", ""), ...classes.map((name, i) => new Option(name, String(i))));
  classField.value = wanted in classes ? wanted : "";
  element("class-field", HTMLElement).hidden = classes.length === 0;
}

function describe(contract: Contract): void {
  const [channels, height, width] = contract.image_shape;
  const facts = {
    Data: contract.dataset,
    Recipe: `${contract.recipe}, ${contract.step.toLocaleString("en")} steps`,
    Images: `${width} × ${height}, ${channels === 1 ? "grey" : "colour"}`,
    ...(contract.classes.length > 0 && { Classes: listed(contract.classes) }),
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

function listed(classes: string[]): string {
  const rest = classes.length - MOST_CLASSES;
  return classes.slice(0, MOST_CLASSES).join(", ") + (rest > 0 ? ` and ${rest} more` : "");
}

async function fetched(name: string): Promise<DroppedFile | undefined> {
  const response = await fetch(`artifact/${name}`);
  if (!response.ok) return undefined;
  return { name, bytes: new Uint8Array(await response.arrayBuffer()) };
}

/** Load the artifact beside the page: first the sampler, to show the grid soon, then the generator, for the walk. */
async function begin(): Promise<void> {
  const sampler = await fetched("sampler.onnx");
  // The visitor's files go first: what was beside the page is not loaded after them.
  if (sampler) await use([sampler], () => loaded === undefined);
  else if (!loaded) speed.textContent = "There is no artifact beside this page yet: drop one, or choose its files.";
  const ours = loaded;
  const generator = sampler && (await fetched("generator.onnx"));
  if (generator) await use([generator], () => loaded === ours && ours !== undefined);
}

function fromAddress(): void {
  const wanted = new URLSearchParams(location.hash.slice(1));
  seedField.value = wanted.get("seed") ?? seedField.value;
  startField.value = wanted.get("start") ?? startField.value;
  if (loaded) classField.value = wanted.get("class") ?? "";
}

drawing.onerror = (error) => problem("drawing", words(error));
walk.onerror = drawing.onerror;

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
const refuse = (error: unknown) => problem("files", words(error));
acceptFiles((files) => {
  use(files).then(() => {
    problem("files", "");
    problem("artifact", "");
  }, refuse);
}, refuse);

fromAddress();
begin().catch((error) => {
  problem("artifact", words(error));
  if (!loaded) speed.textContent = "Nothing is loaded: drop an artifact, or choose its files.";
});
// Browsers allow this only on https and on localhost.
navigator.serviceWorker?.register("offline.js").catch(() => undefined);
