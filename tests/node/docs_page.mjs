// The documentation page in a real browser: register, log in, authorize, and then "Try it out" and
// "Execute" for every operation, with what the page fills in. It prints what came of it:
// `node docs_page.mjs CHROMIUM URL SCREENSHOT`, on a service without accounts.
import { chromium } from "playwright-core";

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const [executablePath, url, screenshot] = process.argv.slice(2);
const { paths } = await (await fetch(`${url}/api/openapi.json`)).json();
const operations = Object.entries(paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, { operationId, tags, responses }]) => {
    const pattern = new RegExp(`^${path.replace(/\{\w+\}/g, "[^/]+")}$`);
    const expected = Number(Object.keys(responses)[0]);
    return { operationId, tag: tags[0], method: method.toUpperCase(), pattern, expected };
  }),
);

// What needs an admin, a code that was sent to somebody, or a provider; or ends the session.
const NEEDS_MORE = [
  "redeemInvite", "confirmSecondFactor", "removeSecondFactor", "renewRecoveryCodes",
  "adminResetSecondFactor", "getOpenId", "beginOpenIdLogin", "endOpenIdLogin", "getOpenIdToken",
  "linkIdentity", "requestReset", "resetPassword", "requestConfirmation", "confirmEmail",
  "changePassword", "logOut", "endSession", "revokeKey", "fetchArchive", "getSharedImage",
  "restoreImages",
];
const isForAll = ({ tag, operationId }) => tag !== "admin" && !NEEDS_MORE.includes(operationId);

const browser = await chromium.launch({
  executablePath,
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const page = await browser.newPage({ viewport: { width: 1000, height: 600 } });
const complaints = [];
const strangers = [];
page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => {
  const { protocol, origin } = new URL(request.url());
  if (protocol.startsWith("http") && origin !== url) strangers.push(request.url());
});

/** Press "Try it out" and "Execute", and return the answer. */
async function execute(operationId, { file, ...typed } = {}) {
  const { tag, method, pattern } = operations.find((one) => one.operationId === operationId);
  const block = page.locator(`#operations-${tag}-${operationId}`);
  const summary = block.locator(".opblock-summary-control");
  await summary.dispatchEvent("click");
  await block.locator(".try-out__btn").click();
  for (const [name, value] of Object.entries(typed)) {
    await block.locator(`tr[data-param-name="${name}"] input`).fill(value);
  }
  if (file) await block.locator('input[type="file"]').setInputFiles(file);
  const answer = page.waitForResponse((response) => {
    const { pathname } = new URL(response.url());
    return response.request().method() === method && pattern.test(pathname);
  });
  await block.locator("button.execute").click();
  const response = await answer;
  await block.locator(".live-responses-table .response-col_status").first().waitFor();
  await summary.dispatchEvent("click"); // closed again: a long page is slow
  return response;
}

async function authorize(token) {
  await page.locator(".auth-wrapper > .authorize").click();
  await page.locator("#auth-bearer-value").fill(token);
  await page.locator(".auth-container", { has: page.locator("#auth-bearer-value") })
    .locator("button.authorize").click();
  await page.locator("button.btn-done").first().click();
}

/** Call the service beside the page, for what it needs to be there. */
async function post(path, body, headers = {}) {
  const answer = await fetch(url + path, { method: "POST", body, headers });
  return (await answer.json()).data;
}

const results = {};
async function attempt(operationId, typed) {
  const response = await execute(operationId, typed);
  results[operationId] = response.status();
  return response;
}

try {
  await page.goto(`${url}/api/docs`);
  await attempt("register");
  const { data } = await (await attempt("login")).json();
  await authorize(data.token);
  await attempt("generate");

  const headers = { "Authorization": `Bearer ${data.token}`, "Content-Type": "application/json" };
  const waiting = JSON.stringify({ prompt: "a fox", model: "unserved" });
  const { records } = await post("/api/v1/images/generate", waiting, headers);
  const drawing = JSON.stringify({ prompt: "a fox", params: { width: 64, height: 64, steps: 1 } });
  const { imageUrl } = await post("/api/v1/images/generate-test", drawing, headers);
  const form = new FormData();
  for (const [name, text] of Object.entries({ username: "bob", password: "secret1" })) {
    form.append(name, text);
  }
  form.append("email", "bob@example.com");
  form.append("avatar", new Blob([Buffer.from(PNG, "base64")]), "me.png");
  const { avatarUrl } = await post("/api/auth/register", form);
  const picture = new FormData();
  picture.append("file", new Blob([Buffer.from(PNG, "base64")]), "me.png");
  const authorization = { "Authorization": headers.Authorization };
  const upload = await post("/api/v1/uploads", picture, authorization);
  const [user_id, filename] = upload.signedUrl.split("?")[0].split("/").slice(-2);
  const typed = {
    addUpload: { file: { name: "me.png", mimeType: "image/png", buffer: Buffer.from(PNG, "base64") } },
    getUpload: { upload_id: upload.id },
    deleteUpload: { upload_id: upload.id },
    getInput: { user_id, filename },
    cancelImage: { generation_id: String(records[0].id) },
    getAvatar: { filename: avatarUrl.split("/").pop() },
    getGeneratedImage: { filename: imageUrl.split("/").pop() },
  };

  const left = operations.filter(isForAll).map((one) => one.operationId)
    .filter((id) => !(id in results));
  const isDeletion = (id) => id.startsWith("delete");
  for (const id of left.filter((id) => !isDeletion(id))) await attempt(id, typed[id]);
  // The share goes with its image, and everything with the account.
  const place = { deleteShare: -1, deleteAccount: 1 };
  const deletions = left.filter(isDeletion);
  deletions.sort((a, b) => (place[a] ?? 0) - (place[b] ?? 0));
  for (const id of deletions) await attempt(id, typed[id]);
} finally {
  await page.screenshot({ path: screenshot, fullPage: true });
  await browser.close();
}
const expected = Object.fromEntries(
  operations.filter(isForAll).map((one) => [one.operationId, one.expected]),
);
console.log(JSON.stringify({ results, expected, complaints, strangers }));
