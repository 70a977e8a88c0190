// The examples of docs/frontend.md, one after the other, in a page of the service:
// `node examples_page.mjs CHROMIUM URL FOLDER DOCUMENT`.
import { readFile } from "node:fs/promises";
import { open, PNG, register } from "./page.mjs";

const [executablePath, url, folder, document] = process.argv.slice(2);
const { page, run } = await open({ executablePath, folder, size: "laptop", language: "en", own: [url], axe: [] });
const text = await readFile(document, "utf-8");
const blocks = [...text.matchAll(/```js\n(.*?)```/gs)].map(([, block]) => block);

// What the examples leave to the page.
const BEFORE = `
var username = "wanda", password = "secret1";
var form = new FormData(), image = new Image(), bar = {}, logins = 0, printed;
var record = { signedThumbnailUrl: "/api/uploads/none" };
var file = new File([Uint8Array.from(atob("${PNG.toString("base64")}"), (one) => one.charCodeAt())], "me.png");
for (const [name, value] of Object.entries({ username: "bob", password, email: "bob@example.com" })) form.append(name, value);
var showLogin = () => (logins += 1), show = () => {}, showWaiting = () => {};
var console = { log: (...all) => (printed = all) };
`;
const MADE = `
var seen = { progress: bar.value, made: records.map(({ status }) => status) };
image.src = new URL(records[0].signedThumbnailUrl, "${url}").href;
seen.picture = await image.decode().then(() => image.naturalWidth > 0);
`;
const AFTER = `
seen.email = email;
seen.code = printed[0];
localStorage.removeItem("token");
seen.ended = await api.get("/auth/profile").catch((error) => error.response.data.code);
seen.login = logins;
var busy = 0, statuses = [];
var answer = await api.get("/health", { validateStatus: (status) => (statuses.push(status), status === 200) });
seen.waited = statuses;
globalThis.seen = seen;
`;

/** One module of all: what a block declares, the next may declare again. */
function moduleOf() {
  const made = blocks.findIndex((block) => block.includes("let records"));
  blocks.splice(made + 1, 0, MADE);
  const whole = [...blocks, AFTER].join("\n").replace(/^(const|let) /gm, "var ");
  const [imports, rest] = [/^import .*$/gm, whole.replace(/^import .*$/gm, "")];
  const first = whole.match(imports).join("\n").replace('"axios"', '"/axios.js"');
  return (first + BEFORE + rest).replaceAll("http://localhost:8000", url).replaceAll("https://host", url);
}

async function serve(path, body) {
  await page.route(url + path, (route) => route.fulfill({ contentType: "text/javascript", body }));
}

await run(async (seen) => {
  await register(url, "wanda");
  await page.goto(url);
  await serve("/axios.js", await readFile("node_modules/axios/dist/esm/axios.js", "utf-8"));
  await serve("/examples.js", moduleOf());
  let asked = 0;
  await page.route("**/api/health", (route) => {
    asked += 1;
    if (asked > 1) return route.continue();
    return route.fulfill({ status: 503, headers: { "Retry-After": "1" }, json: { code: "server_busy" } });
  });
  const module = `${url}/examples.js`;
  Object.assign(seen, await page.evaluate((name) => import(name).then(() => globalThis.seen), module));
});
