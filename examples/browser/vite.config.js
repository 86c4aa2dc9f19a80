import { createHash } from "node:crypto";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { defineConfig } from "vite";

// The artifact that the page shows first: digits by class, unless ARTIFACT names another.
const artifact = resolve(process.env.ARTIFACT ?? "../../artifacts/mnist");

/** Copy the artifact's files into the build, and write the service worker, which stores the build for use offline. */
function finish() {
  let folder;
  return {
    name: "ganpack",
    apply: "build",
    configResolved: (config) => void (folder = resolve(config.root, config.build.outDir)),
    async closeBundle() {
      for (const name of ["sampler.onnx", "generator.onnx"]) {
        const file = join(artifact, name);
        if (existsSync(file)) await cp(file, join(folder, "artifact", name));
        else this.warn(`${file} is not there: the page will ask for files.`);
      }
      const files = await readdir(folder, { recursive: true, withFileTypes: true });
      const names = files.filter((each) => each.isFile()).map((each) => join(each.parentPath, each.name)).sort();
      const hash = createHash("sha256");
      for (const name of names) hash.update(relative(folder, name)).update(await readFile(name));
      const source = await readFile("src/offline.js", "utf-8");
      const kept = names.map((name) => relative(folder, name).replaceAll("\\", "/"));
      const filled = source
        .replace("__VERSION__", JSON.stringify(hash.digest("hex").slice(0, 16)))
        .replace("__FILES__", JSON.stringify(["./", ...kept]));
      await writeFile(join(folder, "offline.js"), filled);
    },
  };
}

export default defineConfig({
  base: "./", // so that the page works under any path
  worker: { format: "es" },
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // because the policy allows no data: addresses
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 1000,
  },
  plugins: [finish()],
});
