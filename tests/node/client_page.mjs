// The reference client in a real browser, from registration to the end of the account:
// `node client_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE [API]`. It prints what it saw, and leaves
// screenshots in the folder.
import { open, PNG } from "./page.mjs";

const [executablePath, url, folder, size, language, api] = process.argv.slice(2);
const service = api ?? url;
// Below a path and from another origin it is the same page: once is enough for axe.
const axe = api || new URL(url).pathname !== "/" ? [] : undefined;
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url, service], axe });

const field = (name) => page.locator(`main [name="${name}"], dialog [name="${name}"]`).last();
const account = { username: `wanda-${size}`, password: "secret1", email: `wanda-${size}@example.com` };

await run(async (seen) => {
  await page.goto(api ? `${url}/?api=${api}/api` : url);
  if (api) {
    await look("other");
    seen.other = await page.locator("main .font-mono").innerText();
    await page.locator("main .btn-primary").click();
  }
  await page.locator("main h1").waitFor();
  seen.language = await page.evaluate(() => document.documentElement.lang);
  await look("landing");

  // What is wrong is said at its field, and the first such field has the focus.
  await page.locator('main a[href*="register"]').click();
  await field("username").fill("w");
  await field("email").fill("nowhere");
  await field("password").fill("123");
  await page.locator("form .btn-primary").click();
  seen.focus = await page.evaluate(() => document.activeElement.getAttribute("name"));
  seen.wrong = await page.locator('[aria-invalid="true"]').count();
  await look("register");
  for (const [name, value] of Object.entries(account)) await field(name).fill(value);
  await field("avatar").setInputFiles({ name: "me.png", mimeType: "image/png", buffer: PNG });
  await page.locator('.avatar img[src^="blob:"]').waitFor();
  await page.locator("form .btn-primary").click();
  await page.waitForURL("**/create*");
  await page.locator(".empty").waitFor();
  await look("empty");

  // A reload loses nothing.
  const prompt = language === "zh" ? "雪山上的极光" : "aurora over snowy mountains";
  await field("prompt").fill(prompt);
  await page.reload();
  seen.kept = (await field("prompt").inputValue()) === prompt;
  await page.locator('.shape input').nth(3).check({ force: true });
  await page.locator('input[name="n"][value="2"]').check({ force: true });
  await page.locator(".more summary").click();
  await field("negative_prompt").fill("clouds");
  await look("form");
  await page.locator("form .btn-primary").click();
  await page.locator(".tile .waits").first().waitFor();
  await look("waiting");
  await page.locator(".tile a").nth(1).waitFor({ timeout: 60_000 });
  await look("create");

  // The session ends elsewhere: one logs in over the page, and goes on where one was.
  await field("prompt").fill("a fox");
  await page.evaluate(async (base) => {
    const [key] = Object.keys(localStorage).filter((name) => name.startsWith("token "));
    const headers = { "Authorization": `Bearer ${localStorage[key]}` };
    await fetch(`${base}/api/auth/logout`, { method: "POST", headers });
  }, service);
  await page.locator("form .btn-primary").click();
  await page.locator("dialog").waitFor();
  await look("session-ended");
  await page.locator("dialog [name=password]").fill(account.password);
  await page.locator("dialog .btn-primary").click();
  await page.locator("dialog").waitFor({ state: "detached" });
  seen.keptOverLogin = (await field("prompt").inputValue()) === "a fox";

  // The gallery: look for one, mark it, look at it, by keys alone.
  await page.locator('nav a[href*="gallery"]').click();
  await page.locator(".grid-of-pictures img").nth(1).waitFor();
  await look("gallery");
  await page.locator('input[type="search"]').fill("no such thing");
  await page.locator(".empty").waitFor();
  await look("nothing-found");
  await page.locator('input[type="search"]').fill(prompt.slice(0, 3));
  await page.locator(".grid-of-pictures img").nth(1).waitFor();
  const first = page.locator(".face").first();
  await first.focus();
  await page.keyboard.press("Enter");
  await page.waitForURL("**/images/*");
  await page.locator(".canvas img").waitFor();
  await look("image");
  const before = page.url();
  await page.keyboard.press("ArrowRight");
  await page.waitForFunction((url) => location.href !== url, before);
  await page.keyboard.press("f");
  await page.locator('.side [aria-pressed="true"]').first().waitFor();
  const download = page.waitForEvent("download");
  await page.locator(".side a.btn-primary").click();
  seen.saved = (await download).suggestedFilename().split(".").pop();
  await page.locator(".side .btn", { hasText: language === "zh" ? "分享" : "Share" }).click();
  await page.locator("dialog .btn-primary").click();
  const link = await page.locator("dialog input").inputValue();
  seen.shared = (await fetch(link)).headers.get("Content-Type");
  await look("share");
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  await page.waitForURL("**/gallery*");

  // Several at once, taken back from the trash.
  await page.locator(".tools .chip").last().click();
  await page.locator(".face").first().click();
  await page.locator(".face").nth(1).click();
  await look("select");
  await page.locator(".chosen .btn-error").click();
  await page.locator(".toasts .act").click();
  await page.locator(".grid-of-pictures img").nth(1).waitFor();

  await page.locator('nav a[href*="account"]').click();
  await page.locator(".session").first().waitFor();
  await look("account");
  await page.locator("main .btn-error").click();
  await field("password").fill("wrong-one");
  await page.locator("dialog .btn-error").click();
  await page.locator('dialog [aria-invalid="true"]').waitFor();
  await look("delete");
  await field("password").fill(account.password);
  await page.locator("dialog .btn-error").click();
  await page.locator("main .headline").waitFor();
  await page.locator('header a[href*="login"]').click();
  await field("username").fill(account.username);
  await field("password").fill(account.password);
  await page.locator("form .btn-primary").click();
  await page.locator('[role="alert"] p').waitFor();
  await look("login");
});
