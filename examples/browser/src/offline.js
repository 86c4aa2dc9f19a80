// A service worker that stores every file of the build, so that the page loads without a network.
// The build fills in the version and the list of files.
const version = __VERSION__;
const files = __FILES__;
const ours = `ganpack ${self.registration.scope} `; // because other pages of this origin have caches too

self.addEventListener("install", (event) => {
  const keep = async () => (await caches.open(ours + version)).addAll(files);
  event.waitUntil(keep().then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = async () => {
    const names = await caches.keys();
    const outdated = names.filter((name) => name.startsWith(ours) && name !== ours + version);
    await Promise.all(outdated.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(old());
});

self.addEventListener("fetch", (event) => {
  if (event.request.method !== "GET") return;
  const answer = async () => {
    const kept = await (await caches.open(ours + version)).match(event.request, { ignoreSearch: true });
    return kept ?? fetch(event.request);
  };
  event.respondWith(answer());
});
