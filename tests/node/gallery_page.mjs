// The collection in a real browser: gallery, one picture, trash and links of an account with pictures:
// `node gallery_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE TOKEN`. It prints what it saw, and leaves
// screenshots in the folder.
import { open } from "./page.mjs";

const [executablePath, url, folder, size, language, token] = process.argv.slice(2);
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url] });
const context = page.context();
await context.addInitScript(([key, value]) => localStorage.setItem(key, value), [`token ${url}/api`, token]);

const faces = page.locator(".face");
const bar = page.locator(".bar-below");
const dialog = page.locator("dialog");
const toast = page.locator(".toasts .act");
const chip = (text) => page.locator(".row .chip", { hasText: text });
const ask = async (path) => {
  const answer = await fetch(url + path, { headers: { Authorization: `Bearer ${token}` } });
  return (await answer.json()).data;
};

async function countFaces(number) {
  await page.waitForFunction((wanted) => document.querySelectorAll(".face").length === wanted, number);
}

/** Long enough for the page to notice; another touch or its end would break it off. */
async function hold(locator) {
  const box = await locator.boundingBox();
  const touch = await context.newCDPSession(page);
  const touchPoints = [{ x: box.x + box.width / 2, y: box.y + box.height / 2 }];
  await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints });
  await bar.waitFor();
  await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
}

async function swipe(locator, from, to) {
  const box = await locator.boundingBox();
  const touch = await context.newCDPSession(page);
  const at = (part) => [{ x: box.x + box.width * part, y: box.y + box.height / 2 }];
  await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: at(from) });
  for (const part of [0.25, 0.5, 0.75, 1]) {
    const touchPoints = at(from + (to - from) * part);
    await touch.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints });
  }
  await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
}

// -- The journeys ---------------------------------------------------------------------------------

async function tagSeveral(seen) {
  await page.goto(`${url}/gallery`);
  await countFaces(12);
  if (size === "phone") await hold(faces.first());
  else {
    await faces.first().hover();
    await page.locator(".tick").first().click();
  }
  seen.begun = await faces.first().getAttribute("aria-checked");
  await faces.nth(3).click(size === "phone" ? {} : { modifiers: ["Shift"] });
  seen.range = await page.locator('.face[aria-checked="true"]').count();
  await look("select");
  await bar.locator("button").nth(2).click();
  await dialog.locator("input").fill("harbour");
  await page.keyboard.press("Enter");
  await look("tags");
  await dialog.locator(".btn-primary").click();
  await dialog.waitFor({ state: "detached" });
  await page.keyboard.press("Escape");
  await chip("harbour").waitFor();
}

async function narrowDown(seen) {
  await chip("harbour").click();
  await page.waitForURL("**/gallery?tag=harbour");
  await countFaces(size === "phone" ? 2 : 4);
  // The address keeps it.
  await page.reload();
  await countFaces(size === "phone" ? 2 : 4);
  await page.locator('input[type="search"]').fill("no such thing");
  await page.locator(".empty").waitFor();
  await look("nothing");
  await page.locator(".empty button").click();
  await countFaces(12);
  seen.address = new URL(page.url()).search;
  // Letters that come quickly lead to what was typed last.
  await page.locator('input[type="search"]').pressSequentially("picture 7", { delay: 20 });
  await countFaces(1);
  if (size === "phone") await page.locator(".narrow").click();
  const time = page.locator("#more-filters select").nth(1);
  await time.selectOption("-1");
  await page.locator('#more-filters input[type="date"]').first().fill("2000-01-01");
  await page.locator('#more-filters input[type="date"]').last().fill("2000-01-02");
  await page.locator(".empty").waitFor();
  await look("filters");
  await page.locator(".empty button").click();
  await countFaces(12);
}

async function deleteAndTakeBack(seen) {
  await page.locator(".tools .chip").last().click();
  await faces.nth(1).click();
  await faces.nth(2).click();
  await bar.locator(".btn-error").click();
  await countFaces(10);
  await toast.click();
  await countFaces(12);
  seen.order = (await faces.first().getAttribute("aria-label")) === "picture 11";
  // Everything that matches, as one file.
  await page.locator(".tools .chip").last().click();
  await bar.locator("button").first().click();
  await page.locator('.face[aria-checked="true"]').nth(11).waitFor();
  await bar.locator("button").nth(3).click();
  await look("zip");
  const download = page.waitForEvent("download");
  await dialog.locator(".btn-primary").click();
  seen.zip = (await download).suggestedFilename().split(".").pop();
  await dialog.waitFor({ state: "detached" });
  await bar.locator("button").last().click();
}

/** By keys alone: to a picture, through it, and back to where one was. */
async function walk(seen) {
  await faces.first().focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("f");
  await page.locator(".heart.on").waitFor();
  await page.keyboard.press("Enter");
  await page.waitForURL("**/images/*");
  await page.locator(".canvas img").waitFor();
  await look("image");
  await page.keyboard.press("+");
  await page.locator(".zoomed").waitFor();
  const before = page.url();
  await page.keyboard.press("ArrowRight"); // moves the picture
  seen.stays = page.url() === before;
  await look("zoomed");
  await page.keyboard.press("0");
  await page.locator(".zoomed").waitFor({ state: "detached" });
  await page.keyboard.press("ArrowRight");
  await page.waitForURL((address) => address.href !== before);
  await page.locator(".canvas").hover();
  await page.mouse.wheel(0, -400);
  await page.locator(".zoomed").waitFor();
  await page.keyboard.press("Escape");
  await page.locator(".zoomed").waitFor({ state: "detached" });
  const last = page.url();
  await page.keyboard.press("Escape");
  await page.waitForURL("**/gallery*");
  await page.waitForFunction((href) => document.activeElement.href === href, last);
  await page.keyboard.press("Enter");
  await page.waitForURL(last);
}

/** To the next picture, by a finger where there is one. */
async function turn() {
  const before = page.url();
  if (size === "phone") await swipe(page.locator(".canvas"), 0.8, 0.2);
  else await page.locator(".turn").last().click();
  await page.waitForURL((address) => address.href !== before);
  await page.locator(".canvas img").waitFor();
}

async function useOne(seen) {
  await turn();
  await turn(); // past those with a tag
  const field = page.locator('.side [role="combobox"]');
  await field.fill("HARB");
  await page.locator('[role="option"]').waitFor();
  await look("completion");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.locator(".side .tag", { hasText: "harbour" }).waitFor();
  await page.locator(".side .tag button").click();
  await page.locator(".side .tag").waitFor({ state: "detached" });
  const download = page.waitForEvent("download");
  await page.locator(".side a.link").click();
  seen.stripped = (await download).suggestedFilename().split(".").pop();

  await page.locator(".side .grid-cols-2 button").click();
  await dialog.locator("select").selectOption("0");
  await dialog.locator("input").fill("90");
  await look("share");
  await dialog.locator(".btn-primary").click();
  await dialog.locator("input[readonly]").waitFor();
  await page.keyboard.press("Escape");

  const gone = page.url();
  await page.keyboard.press("Delete");
  await page.waitForURL((address) => address.href !== gone);
  await toast.click();
  await page.waitForURL(gone);
  await page.locator(".canvas img").waitFor();
}

async function endLinks(seen) {
  await page.goto(`${url}/shares`);
  await page.locator(".share img").waitFor();
  const [{ createdAt, expiresAt }] = (await ask("/api/v1/shares")).shares;
  seen.days = Math.round((Date.parse(expiresAt) - Date.parse(createdAt)) / 86_400_000);
  await look("shares");
  await page.locator(".share .btn").click();
  await dialog.locator(".btn-error").click();
  await page.locator(".empty").waitFor();
  await look("no-shares");
  seen.shares = (await ask("/api/v1/shares")).shares.length;
}

async function emptyTrash(seen) {
  await page.goto(`${url}/trash`);
  await page.locator(".empty").waitFor();
  await look("no-trash");
  await page.locator(".rooms a").first().click();
  await countFaces(12);
  await page.locator(".tools .chip").last().click();
  for (const index of [0, 1, 2]) await faces.nth(index).click();
  await page.keyboard.press("Delete");
  await countFaces(9);
  await page.locator(".rooms a").last().click();
  await page.locator(".card").nth(2).waitFor();
  await page.locator('.card input[type="checkbox"]').first().check();
  await look("trash");
  await bar.locator(".btn-primary").click();
  await page.waitForFunction(() => document.querySelectorAll(".card").length === 2);
  await page.locator(".card .acts button").last().click();
  await look("purge");
  await dialog.locator(".btn-error").click();
  await page.waitForFunction(() => document.querySelectorAll(".card").length === 1);
  await page.locator(".intro button").last().click();
  await dialog.locator(".btn-error").click();
  await page.locator(".empty").waitFor();
  seen.trash = (await ask("/api/v1/images/trash")).records.length;
}

/** No network: it is said, and all goes on by itself once it is back. */
async function loseTheNetwork() {
  await page.goto(`${url}/create`);
  await page.locator('nav a[href*="gallery"]').waitFor();
  await page.locator('nav a[href*="gallery"]').click(); // what shows it is here now
  await countFaces(10);
  await page.goto(`${url}/trash`);
  await page.locator(".empty").waitFor();
  await context.setOffline(true);
  await page.locator(".rooms a").first().click();
  await page.locator(".empty[role=alert]").waitFor();
  await look("offline");
  await context.setOffline(false);
  await countFaces(10);
  await page.goto(`${url}/images/999999`);
  await page.locator(".empty").waitFor();
  await look("gone");
}

await run(async (seen) => {
  await tagSeveral(seen);
  await narrowDown(seen);
  await deleteAndTakeBack(seen);
  await look("gallery");
  await walk(seen);
  await useOne(seen);
  await endLinks(seen);
  await emptyTrash(seen);
  await loseTheNetwork();
});
