// What the reference client says when not all is well:
// `node states_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE`. No worker runs, `root` is an admin, and an
// account may make one picture a day.
import { caller, logIn, open, register } from "./page.mjs";

const [executablePath, url, folder, size, language] = process.argv.slice(2);
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url] });
const call = caller(url);
const note = page.locator("form .note").first();
const submit = page.locator("main form .btn-primary");

async function worker(seen) {
  await note.waitFor();
  const stopped = await note.innerText();
  await look("worker-stopped");
  const { data } = await call("POST", "/auth/login", { username: "root", password: "secret1" });
  await call("POST", "/v1/admin/queue/pause", {}, data.token);
  await page.reload();
  await note.waitFor();
  seen.paused = (await note.innerText()) !== stopped;
  await look("queue-paused");
}

async function quota(seen) {
  await page.locator('[name="prompt"]').fill("a fox");
  await submit.click();
  await page.locator(".tile").first().waitFor();
  await page.locator(".send .note").waitFor();
  await page.locator('[name="prompt"]').fill("a hen");
  await submit.click();
  await page.locator('.send [role="alert"] p').waitFor();
  await look("quota-spent");
  seen.tiles = await page.locator(".tile").count();
  seen.prompt = await page.locator('[name="prompt"]').inputValue();
}

async function connection(seen) {
  await page.context().setOffline(true);
  await page.locator(".note .icon").first().waitFor();
  await page.locator('nav a[href$="/gallery"]').click();
  await page.locator(".toasts .one").first().waitFor();
  await look("offline");
  await page.context().setOffline(false);
  await page.locator('nav a[href$="/gallery"]').click();
  await page.waitForURL("**/gallery");
  seen.back = true;
}

/** An answer that says when to come back, as the service or nginx gives it. */
async function refuse(path, seconds) {
  const body = JSON.stringify({ status: "error", code: "server_busy", message: "Too busy" });
  const headers = { "Retry-After": String(seconds) };
  await page.route(path, (route) => route.fulfill({ status: 503, headers, contentType: "application/json", body }));
}

async function waiting() {
  const path = "**/api/v1/images/history*";
  // Half a minute at most is waited for by the client itself; of more, the screen says it.
  await refuse(path, 20);
  await page.goto(`${url}/gallery`);
  await page.locator('[role="status"] > .note').waitFor();
  await look("busy");
  await page.unroute(path);
  await page.clock.fastForward(21_000);
  await page.locator('[role="status"] > .note').waitFor({ state: "detached" });
  await refuse(path, 90);
  await page.reload();
  await page.locator(".empty").waitFor();
  await look("busy-for-long");
  await page.unroute(path);
  await page.clock.fastForward(91_000);
  await page.locator('.empty[role="alert"]').waitFor({ state: "detached" });
}

async function session(seen, account) {
  await page.goto(`${url}/account`);
  await page.locator('#password [name="oldPassword"]').fill(account.password);
  await page.locator('#password [name="newPassword"]').fill("secret2");
  const token = await page.evaluate(() => Object.entries(localStorage).find(([name]) => name.startsWith("token "))[1]);
  await call("POST", "/auth/logout", {}, token);
  await page.locator("#password .btn").click();
  await page.locator("dialog [name=password]").fill(account.password);
  await look("session-ended");
  await page.locator("dialog .btn-primary").click();
  await page.locator("dialog").waitFor({ state: "detached" });
  seen.kept = await page.locator('#password [name="newPassword"]').inputValue();
}

await run(async (seen) => {
  await page.clock.install();
  const account = await register(url, "ruth");
  await logIn(page, url, account, "/create");
  await worker(seen);
  await quota(seen);
  await connection(seen);
  await waiting();
  await session(seen, account);
});
