// Tests of the built page in real Chromium, against images that Python draws. tests/examples/test_browser_example.py builds
// the page. The JSON file EXPECTED names the files, and the images that the page must show.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, beforeEach, afterEach, test } from "node:test";
import { chromium } from "playwright-core";
import { serve } from "./serve.mjs";

if (!process.env.EXPECTED) throw new Error("run by pytest -m full tests/examples/test_browser_example.py");
const expected = JSON.parse(await readFile(process.env.EXPECTED, "utf-8"));
const golden = JSON.parse(await readFile(expected.golden, "utf-8"));
const SIZE = 3 * golden.image_shape[1] * golden.image_shape[2]; // levels of an image: red, green, blue
const LAST_START = 2n ** 63n - 64n;

let browser, site, context, page, trouble;

before(async () => {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  args.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  browser = await chromium.launch({ executablePath: expected.chromium, args });
  site = await serve(expected.dist);
});
after(async () => {
  await browser?.close();
  await site?.stop();
});
beforeEach(() => visit());
afterEach(async () => {
  assert.deepEqual(trouble, []);
  await context.close();
});

/** Open the page afresh and wait until both files are in use. */
async function visit(options = {}, hash = "") {
  await context?.close();
  context = await browser.newContext(options);
  page = await context.newPage();
  trouble = [];
  page.on("console", (message) => {
    const ours = message.text().startsWith("Canvas2D"); // that these tests read the canvases back
    if (["error", "warning"].includes(message.type()) && !ours) trouble.push(message.text());
  });
  page.on("pageerror", (error) => trouble.push(String(error)));
  page.on("request", (request) => request.url().startsWith(site.address) || trouble.push(request.url()));
  await page.goto(site.address + hash);
  await page.waitForFunction(() => !document.getElementById("walk-slider").disabled);
}

/** Levels of canvases, red, green and blue of each pixel. */
async function levels(selector) {
  const shown = await page.$$eval(selector, (canvases) =>
    canvases.map((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return { width: canvas.width, height: canvas.height, data: Array.from(data) };
    }),
  );
  return shown.map(({ width, height, data }) => {
    assert.ok(data.every((level, i) => i % 4 < 3 || level === 255));
    return { width, height, colours: data.filter((_, i) => i % 4 < 3) };
  });
}

const grid = async () => (await levels("#grid canvas")).flatMap(({ colours }) => colours);

/** At most one level apart in 0.1 % of the pixels; grey is the same level three times. */
function assertSame(drawn, base64) {
  const given = Buffer.from(base64, "base64");
  const wanted = given.length * 3 === drawn.length ? Buffer.from([...given].flatMap((grey) => [grey, grey, grey])) : given;
  assert.equal(drawn.length, wanted.length);
  const apart = drawn.map((level, i) => Math.abs(level - wanted[i]));
  const most = apart.reduce((one, other) => Math.max(one, other)); // too many for arguments
  assert.ok(most <= 1, `${most} levels apart`);
  assert.ok(apart.filter(Boolean).length <= Math.ceil(wanted.length / 1000));
}

/** Type a seed and a start, and wait for the images. */
async function place(seed, start = 0n) {
  await page.fill("#seed", String(seed));
  await page.fill("#start", String(start));
  await named(seed, start);
}

const named = (seed, start) =>
  page.waitForSelector(`#grid button:first-child[aria-label="Image ${start} of seed ${seed}"]`);

/** Drop files on the page as a hand would. */
async function drop(...files) {
  const contents = await Promise.all(
    files.map(async ([name, content]) => [name, Buffer.from(content ?? (await readFile(name))).toString("base64")]),
  );
  const data = await page.evaluateHandle((contents) => {
    const transfer = new DataTransfer();
    for (const [name, base64] of contents) {
      const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
      transfer.items.add(new File([bytes], name.split("/").at(-1)));
    }
    return transfer;
  }, contents);
  await page.dispatchEvent("body", "dragenter", { dataTransfer: data });
  assert.ok(await page.isVisible("#drop"));
  await page.dispatchEvent("body", "drop", { dataTransfer: data });
  assert.ok(!(await page.isVisible("#drop")));
}

const problem = async () => {
  await page.waitForSelector("#problem:not([hidden])");
  return page.textContent("#problem");
};

test("seed 7 shows the very pixels that Python's Sampler gives", async () => {
  assert.equal(await page.inputValue("#seed"), "7");
  assertSame(await grid(), expected.seed7);
  assert.match(await page.textContent("#speed"), /^64 images in [\d.]+ ms: [\d,]+ images\/s$/);
});

test("the policy grants WebAssembly and nothing else", async () => {
  const rules = Object.fromEntries(site.policy.split(";").map((rule) => rule.trim().split(/ (.*)/s)));
  assert.equal(rules["default-src"], "'none'");
  assert.equal(rules["script-src"], "'self' 'wasm-unsafe-eval'");
  assert.ok(Object.values(rules).every((sources) => /^('none'|'self'( 'wasm-unsafe-eval')?)$/.test(sources)));
  assert.ok(site.asked.every((url) => url.startsWith("/some/where/")));
  await page.evaluate(() => {
    const script = document.createElement("script");
    script.textContent = "window.inline = true";
    document.head.append(script);
    setTimeout("window.evaluated = true", 0);
  });
  await page.waitForTimeout(200);
  assert.deepEqual(await page.evaluate(() => [window.inline, window.evaluated]), [undefined, undefined]);
  assert.equal(trouble.filter((text) => /Content Security Policy/.test(text)).length, trouble.length);
  trouble = []; // what those attempts left
});

test("typed seeds and starts give the golden images", async () => {
  for (const { seed, start, count, pixels } of golden.images) {
    const first = BigInt(start) < LAST_START ? BigInt(start) : LAST_START;
    await place(seed, first);
    const from = Number(BigInt(start) - first) * SIZE;
    assertSame((await grid()).slice(from, from + count * SIZE), pixels);
  }
});

test("z is bit for bit that of the golden file", async () => {
  const sampler = (await readFile(join(expected.artifact, "sampler.onnx"))).toString("base64");
  const worker = site.asked.find((url) => /\/worker-[^/]+\.js$/.test(url));
  const found = await page.evaluate(
    async ([url, sampler, images]) => {
      const worker = new Worker(url, { type: "module" });
      const ask = (request) =>
        new Promise((resolve, reject) => {
          worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve(data.done));
          worker.postMessage({ id: 1, ...request });
        });
      await ask({ kind: "open", sampler: Uint8Array.from(atob(sampler), (each) => each.charCodeAt(0)) });
      const all = [];
      for (const { seed, start, count } of images) {
        const { z } = await ask({ kind: "draw", seed: BigInt(seed), start: BigInt(start), count });
        all.push(Array.from(new Uint8Array(z.buffer, z.byteOffset, z.byteLength)));
      }
      return all;
    },
    [worker, sampler, golden.images],
  );
  found.forEach((bytes, i) => {
    assert.equal(createHash("sha256").update(Uint8Array.from(bytes)).digest("hex"), golden.images[i].z_sha256);
  });
});

test("a button takes another seed, and the address keeps it", async () => {
  const before = await grid();
  await page.click("#another");
  await page.waitForFunction(() => !location.hash.startsWith("#seed=7&"));
  const drawn = await grid();
  assert.notDeepEqual(drawn, before);
  const seed = await page.inputValue("#seed");
  assert.ok((await page.evaluate(() => location.hash)).startsWith(`#seed=${seed}&start=0`));
  await visit({}, `#seed=${seed}&start=0`);
  assert.deepEqual(await grid(), drawn);
  await page.click("#later");
  await named(seed, 64n);
  await page.click("#earlier");
  await named(seed, 0n);
});

test("what is no seed is told, and the images stay", async () => {
  const before = await grid();
  for (const bad of ["", "-1", "1.5", "seven", String(2n ** 63n)]) {
    await page.fill("#seed", bad);
    assert.match(await problem(), /^A seed is a whole number from 0 to 9,223,372,036,854,775,807\.$/);
    assert.equal(await page.getAttribute("#seed", "aria-invalid"), "true");
  }
  assert.deepEqual(await grid(), before);
  await page.fill("#seed", "7");
  assert.ok(!(await page.isVisible("#problem")));
});

test("a click shows one large, with its seed and index", async () => {
  await page.click("#grid button:nth-child(20)");
  assert.equal(await page.textContent("#large-name"), "Image 19 of seed 7");
  const [large] = await levels("#large-picture");
  assert.deepEqual(large.colours, (await grid()).slice(19 * SIZE, 20 * SIZE));
  await page.click("#large-later");
  assert.equal(await page.textContent("#large-name"), "Image 20 of seed 7");
  await page.click("#large-close");
  assert.ok(!(await page.isVisible("#large")));
});

test("all of it by keyboard", async () => {
  const key = async (...names) => {
    for (const name of names) await page.keyboard.press(name);
  };
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label") ?? document.activeElement.id);
  await key("Tab");
  assert.equal(await focused(), "seed");
  await page.keyboard.type("9"); // selected by Tab: typed over
  await named(9n, 0n);
  await key("Tab", "Tab", "Tab", "Tab", "Tab");
  assert.equal(await focused(), "Image 0 of seed 9");
  await key("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "End", "ArrowRight", "ArrowUp");
  assert.equal(await focused(), "Image 55 of seed 9");
  await key("Enter");
  assert.equal(await page.textContent("#large-name"), "Image 55 of seed 9");
  await key("ArrowRight");
  assert.equal(await page.textContent("#large-name"), "Image 56 of seed 9");
  await key("Escape");
  assert.equal(await focused(), "Image 55 of seed 9");
  await key("Tab");
  assert.equal(await focused(), "Position in the walk");
  const before = await levels("#walk-picture");
  await key("End");
  await page.waitForFunction(() => document.getElementById("walk-slider").value === "1");
  await page.waitForTimeout(300);
  assert.notDeepEqual(await levels("#walk-picture"), before);
  await key("Tab");
  assert.equal(await focused(), "choose");
});

/** Choose the ends of the walk, and the way to where it is at t. */
async function walkBetween(from, to) {
  await page.click(`#grid button:nth-child(${from + 1})`);
  await page.click("#large-from");
  await page.click(`#grid button:nth-child(${to + 1})`);
  await page.click("#large-to");
  return async (t) => {
    await page.fill("#walk-slider", String(t));
    await page.waitForTimeout(300);
    return (await levels("#walk-picture"))[0].colours;
  };
}

test("the slider walks from one image to the other", async () => {
  const { from, to, halfway } = expected.walk;
  const walk = await walkBetween(from, to);
  assert.equal(await page.textContent("#walk-from-name"), `Image ${from} of seed 7`);
  assert.equal(await page.textContent("#walk-to-name"), `Image ${to} of seed 7`);
  const grey = SIZE / 3;
  const image = (i) => Buffer.from(expected.seed7, "base64").subarray(i * grey, (i + 1) * grey);
  assertSame(await walk(0), image(from).toString("base64"));
  assertSame(await walk(1), image(to).toString("base64"));
  assertSame(await walk(0.5), halfway);
});

test("another artifact's files take the place of the first, in colour", async () => {
  const other = (name) => [join(expected.other.artifact, name)];
  await drop(other("sampler.onnx"), other("generator.onnx"), ["README.md", "not for the page"]);
  await page.waitForFunction((width) => document.querySelector("#grid canvas").width === width, expected.other.width);
  const drawn = await grid();
  assertSame(drawn, expected.other.seed7);
  assert.ok(await page.isEnabled("#walk-slider"));
  const { from, to } = expected.walk;
  const walk = await walkBetween(from, to);
  assertSame(await walk(0.5), expected.other.halfway);
  await page.click("#grid button:nth-child(64)");
  assert.deepEqual((await levels("#large-picture"))[0].colours, drawn.slice(-drawn.length / 64));
});

test("an artifact with classes draws the one that is chosen", async () => {
  const { artifact, drawn, three, names, walk } = expected.conditional;
  assert.ok(!(await page.isVisible("#class")));
  await drop(...["sampler.onnx", "generator.onnx"].map((name) => [join(artifact, name)]));
  await page.waitForSelector("#class");
  await page.waitForFunction(() => !document.getElementById("walk-slider").disabled);
  assertSame(await grid(), drawn);
  assert.deepEqual(await page.$$eval("#class option", (all) => all.map(({ text }) => text)), ["random for each", ...names]);
  await page.selectOption("#class", { label: names[3] });
  await page.waitForFunction(() => location.hash.endsWith("&class=3"));
  assertSame(await grid(), three);
  assert.equal(await page.getAttribute("#grid button", "aria-label"), `Image 0 of seed 7: ${names[3]}`);
  await page.fill("#walk-slider", "0.5");
  await page.waitForTimeout(300);
  assertSame((await levels("#walk-picture"))[0].colours, walk);
});

test("with sampler.onnx alone the slider is off, until its generator comes", async () => {
  const { artifact, width } = expected.other;
  await page.setInputFiles("#files", [join(artifact, "sampler.onnx")]);
  await page.waitForFunction((width) => document.querySelector("#grid canvas").width === width, width);
  assertSame(await grid(), expected.other.seed7);
  assert.ok(await page.isDisabled("#walk-slider"));
  assert.match(await page.textContent("#walk-note"), /needs the generator\.onnx/);
  await drop([join(expected.artifact, "generator.onnx")]);
  assert.match(await problem(), /belongs to another artifact/);
  await drop([join(artifact, "generator.onnx")]);
  await page.waitForFunction(() => !document.getElementById("walk-slider").disabled);
  assert.ok(!(await page.isVisible("#problem")));
});

test("a broken file gives a readable message and changes nothing", async () => {
  const before = await grid();
  const good = await readFile(join(expected.artifact, "sampler.onnx"));
  const flipped = Buffer.from(good);
  flipped[good.length >> 1] ^= 1;
  const cases = [
    [["sampler.onnx", flipped], /sampler\.onnx is damaged: its content does not match its seal/],
    [["sampler.onnx", good.subarray(0, good.length >> 1)], /sampler\.onnx is not an ONNX file, or it is incomplete/],
    [["sampler.onnx", Buffer.alloc(0)], /sampler\.onnx was not written by ganpack/],
    [["sampler.onnx", Buffer.from("<!doctype html><title>Not found</title>")], /sampler\.onnx is not an ONNX file/],
    [["holiday.jpg", Buffer.from([255, 216, 255, 224])], /holiday\.jpg is not an ONNX file/],
    ...expected.forged.map(({ file, message }) => [[file], new RegExp(message)]),
  ];
  for (const [file, message] of cases) {
    await drop(file);
    const name = file[0].split("/").at(-1);
    await page.waitForFunction((name) => document.getElementById("problem").textContent.startsWith(name), name);
    assert.match(await problem(), message);
    await page.evaluate(() => (document.getElementById("problem").textContent = ""));
  }
  assert.deepEqual(await grid(), before);
  await place(8n);
  assert.notDeepEqual(await grid(), before);
  assert.match(await problem(), /holiday|contract/); // the last message stays until good files come
});

test("a file that is still loading hides no refusal, and replaces no file of the visitor", async () => {
  const refused = [["README.md", "not for the page"]];
  const other = [[join(expected.other.artifact, "sampler.onnx")], [join(expected.other.artifact, "generator.onnx")]];
  for (const [files, late] of [[refused, "generator.onnx"], [refused, "sampler.onnx"], [other, "sampler.onnx"]]) {
    await context.close();
    context = await browser.newContext({ serviceWorkers: "block" });
    page = await context.newPage();
    let deliver;
    const wait = new Promise((resolve) => (deliver = resolve));
    await page.route(`**/artifact/${late}`, (route) => wait.then(() => route.continue()));
    await page.goto(site.address);
    if (late === "generator.onnx") await named(7n, 0n);
    await drop(...files);
    if (files === refused) assert.match(await problem(), /^README\.md is not an ONNX file/);
    else await named(7n, 0n);
    deliver();
    if (files === refused) {
      await page.waitForFunction(() => !document.getElementById("walk-slider").disabled);
      assert.match(await problem(), /^README\.md is not an ONNX file/);
      await place(8n); // and what the visitor types does not hide it either
      assert.match(await problem(), /^README\.md is not an ONNX file/);
    } else {
      await page.waitForTimeout(500);
      assertSame(await grid(), expected.other.seed7);
    }
  }
});

test("without an artifact beside it, it asks for one", async () => {
  await context.close();
  context = await browser.newContext({ serviceWorkers: "block" });
  page = await context.newPage();
  await page.route("**/artifact/*", (route) => route.fulfill({ status: 404 }));
  await page.goto(site.address);
  await page.waitForFunction(() => /drop one, or choose its files/.test(document.getElementById("speed").textContent));
  await page.setInputFiles("#files", [join(expected.artifact, "generator.onnx")]);
  assert.match(await problem(), /Drop the sampler\.onnx of the same artifact with it/);
  await page.setInputFiles("#files", ["sampler.onnx", "generator.onnx"].map((name) => join(expected.artifact, name)));
  await page.waitForFunction(() => !document.getElementById("walk-slider").disabled);
  assertSame(await grid(), expected.seed7);
});

test("it fits a phone, and answers to touch", async () => {
  await visit({ viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 });
  assert.equal(await page.evaluate(() => document.documentElement.scrollWidth), 390);
  await page.tap("#grid button:nth-child(12)");
  assert.equal(await page.textContent("#large-name"), "Image 11 of seed 7");
  const box = await page.locator("#large").boundingBox();
  assert.ok(box.x >= 0 && box.x + box.width <= 390);
  await page.tap("#large-close");
  await page.tap("#another");
  await page.waitForFunction(() => !location.hash.startsWith("#seed=7&"));
});

for (const colorScheme of ["light", "dark"]) {
  test(`text stands out from its ground, ${colorScheme}`, async () => {
    await visit({ colorScheme });
    await page.fill("#seed", "x");
    const weakest = await page.evaluate(() => {
      const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
      const luminance = (...colours) => {
        for (const colour of ["#fff", ...colours]) [canvas.fillStyle] = [colour], canvas.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((level) => {
          const x = level / 255;
          return x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const grounds = (element) =>
        element ? [...grounds(element.parentElement), getComputedStyle(element).backgroundColor] : [];
      const texts = [...document.querySelectorAll("h1, h2, p, a, span, input:not([type]), button, dt, dd, figcaption, code")];
      const seen = texts.filter((each) => each.checkVisibility() && (each.value || each.textContent.trim()));
      return seen
        .map((element) => {
          const ground = grounds(element);
          const pair = [luminance(...ground), luminance(...ground, getComputedStyle(element).color)].sort();
          return [(pair[1] + 0.05) / (pair[0] + 0.05), element.id || element.tagName];
        })
        .sort(([a], [b]) => a - b)[0];
    });
    assert.ok(weakest[0] >= 4.5, `contrast ${weakest}`);
  });
}

test("once loaded, it works without the server", async () => {
  await page.evaluate(() => navigator.serviceWorker.ready);
  await page.waitForFunction(() => navigator.serviceWorker.controller);
  await site.stop();
  await place(8n);
  await page.goto(`${site.address}#seed=7&start=0`);
  await page.reload();
  await page.waitForFunction(() => !document.getElementById("walk-slider").disabled);
  assertSame(await grid(), expected.seed7);
  site = await serve(expected.dist);
});
