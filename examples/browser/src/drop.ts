import { requireSize } from "../../artifact.mjs";
import { element } from "./page";

export interface DroppedFile {
  name: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** Take files that are chosen with the button, or files and folders that are dropped anywhere on the page. */
export function acceptFiles(use: (files: DroppedFile[]) => void, tell: (error: unknown) => void): void {
  const chosen = element("files", HTMLInputElement);
  element("choose", HTMLButtonElement).addEventListener("click", () => chosen.click());
  chosen.addEventListener("change", () => {
    load([...(chosen.files ?? [])]).then(use, tell);
    chosen.value = ""; // so that the same files can be chosen again
  });

  const veil = element("drop", HTMLElement);
  const show = (event: DragEvent) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    veil.hidden = false;
  };
  document.addEventListener("dragenter", show);
  document.addEventListener("dragover", show);
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) veil.hidden = true; // the pointer has left the window
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    veil.hidden = true;
    const items = [...(event.dataTransfer?.items ?? [])].filter((item) => item.kind === "file");
    // Read the list now: the browser empties it when this function returns.
    const parts = items.map((item) => ({ entry: item.webkitGetAsEntry(), file: item.getAsFile() }));
    Promise.all(parts.map(({ entry, file }) => within(entry, file)))
      .then((files) => load(files.flat()))
      .then(use, tell);
  });
}

async function within(entry: FileSystemEntry | null, file: File | null): Promise<File[]> {
  if (!entry?.isDirectory) return file ? [file] : [];
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const entries = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
  const files = entries.filter((each): each is FileSystemFileEntry => each.isFile);
  return Promise.all(files.map((each) => new Promise<File>((resolve, reject) => each.file(resolve, reject))));
}

/** Read the ONNX files. If there are none, read the first file, so that the page says what is wrong with it. */
async function load(files: File[]): Promise<DroppedFile[]> {
  const models = files.filter((file) => file.name.endsWith(".onnx"));
  const wanted = models.length > 0 ? models : files.slice(0, 1);
  if (wanted.length === 0) throw new Error("There is no file in what was dropped.");
  return Promise.all(
    wanted.map(async (file) => {
      requireSize(file.name, file.size);
      return { name: file.name, bytes: new Uint8Array(await file.arrayBuffer()) };
    }),
  );
}
