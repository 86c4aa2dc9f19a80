// A static file server under a sub-path. It sends the page's policy as a header with every file, so that the policy applies
// to the worker too.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".wasm": "application/wasm" };

/** Serve a folder at http://127.0.0.1:PORT/some/where/. `asked` collects the addresses of all requests. */
export async function serve(folder) {
  const [, policy] = /Content-Security-Policy"\s+content="([^"]+)"/.exec(await readFile(join(folder, "index.html"), "utf-8"));
  const asked = [];
  const server = createServer(async (request, response) => {
    asked.push(request.url);
    const [, path] = /^\/some\/where\/([^?]*)/.exec(request.url) ?? [];
    const name = normalize(path || "index.html");
    try {
      if (path === undefined || name.startsWith("..")) throw new Error("not here");
      const content = await readFile(join(folder, name));
      const type = TYPES[extname(name)] ?? "application/octet-stream";
      response.writeHead(200, { "Content-Type": type, "Content-Security-Policy": policy }).end(content);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = () => new Promise((resolve) => server.close(resolve) && server.closeAllConnections());
  return { address: `http://127.0.0.1:${server.address().port}/some/where/`, policy, asked, stop };
}
