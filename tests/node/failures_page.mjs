// The service is killed and started again while somebody waits:
// `node failures_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE`. It prints what it wants done, a line each,
// and goes on when a line comes back.
import { createInterface } from "node:readline";
import { logIn, open, register } from "./page.mjs";

const [executablePath, url, folder, size, language] = process.argv.slice(2);
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url], axe: [] });
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const note = page.locator('[role="status"] > .note');
const prompt = page.locator('[name="prompt"]');
const submit = page.locator("main form .btn-primary");
const pictures = page.locator(".tile a");

async function have(deed) {
  console.log(deed);
  await answers.next();
}

/** Killed in the middle of a wait: it is said, and the picture comes once the service is back. */
async function wait(seen) {
  await prompt.fill("a fox");
  await submit.click();
  await page.locator(".tile .waits").waitFor();
  await have("kill the service");
  await note.waitFor();
  await look("service-gone");
  // What is sent meanwhile is not lost, and is not made twice.
  await prompt.fill("a hen");
  await submit.click();
  await page.locator('.send [role="alert"]').waitFor();
  seen.prompt = await prompt.inputValue();
  await have("start the service");
  await have("start a worker");
  await pictures.first().waitFor({ timeout: 60_000 });
  await note.waitFor({ state: "detached" });
  await submit.click();
  await pictures.nth(1).waitFor({ timeout: 60_000 });
  seen.pictures = await page.locator(".tile").count();
}

/** A screen that is opened while the service is away fills itself when it is back. */
async function openMeanwhile() {
  await page.locator('nav a[href$="/gallery"]').click();
  await page.locator(".face img").nth(1).waitFor();
  await page.locator('nav a[href$="/create"]').click();
  await prompt.waitFor();
  await have("kill the service");
  await page.locator('nav a[href$="/gallery"]').click();
  await page.locator(".face").nth(1).waitFor();
  await page.locator('input[type="search"]').fill("fox");
  await page.locator("main [role=alert]").waitFor();
  await look("gallery-without-service");
  await have("start the service");
  await page.waitForFunction(() => document.querySelectorAll(".face").length === 1);
}

/** On a slow line the page says that it loads, and comes. */
async function throttled(seen) {
  const cdp = await page.context().newCDPSession(page);
  const speed = { latency: 300, downloadThroughput: 50_000, uploadThroughput: 20_000 };
  await cdp.send("Network.emulateNetworkConditions", { offline: false, ...speed });
  await page.goto(`${url}/gallery`);
  await page.locator("main .skeleton-rows").waitFor();
  await page.locator(".face img").nth(1).waitFor();
  await page.locator(".face").first().click();
  await page.locator(".canvas img").waitFor();
  seen.slow = await page.waitForFunction(() => document.querySelector(".canvas img")?.complete).then(() => true);
}

await run(async (seen) => {
  const account = await register(url, "ruth");
  await logIn(page, url, account, "/create");
  await wait(seen);
  await openMeanwhile();
  await throttled(seen);
});
