// What the READMEs show of the page: `node screenshots.mjs CHROMIUM URL FOLDER TOKEN`.
import { open } from "./page.mjs";

const [executablePath, url, folder, token] = process.argv.slice(2);
const { page, run } = await open({ executablePath, folder, size: "laptop", language: "en", own: [url] });
await page.addInitScript(([key, value]) => localStorage.setItem(key, value), [`token ${url}/api`, token]);

/** Wait until all that is in the window has come. */
async function settle() {
  await page.waitForFunction(() =>
    [...document.images].every((image) => image.complete || image.getBoundingClientRect().top > innerHeight),
  );
  await page.evaluate(() => document.fonts.ready);
}

async function take(name, colorScheme) {
  await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
  await settle();
  await page.screenshot({ path: `${folder}/${name}.png` });
}

await run(async () => {
  await page.goto(`${url}/create`);
  await page.locator(".tile img").nth(5).waitFor();
  await page.locator('[name="prompt"]').fill("aurora over snowy mountains, pine forest, lake");
  await page.evaluate(() => document.activeElement.blur());
  await take("create", "light");
  await page.goto(`${url}/gallery`);
  await page.locator(".face img").nth(5).waitFor();
  await take("gallery", "dark");
  await page.setViewportSize({ width: 390, height: 780 });
  await page.locator(".face").first().click();
  await page.locator(".canvas img").waitFor();
  await take("phone", "light");
});
