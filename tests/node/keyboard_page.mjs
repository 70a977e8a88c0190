// A whole journey by keys alone: `node keyboard_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE`. At every
// step the focus must be seen, and lie in the window.
import { open } from "./page.mjs";

const [executablePath, url, folder, size, language] = process.argv.slice(2);
const { page, said, run } = await open({ executablePath, folder, size, language, own: [url], axe: [] });
const MOST_STEPS = 60;
const MOST_LOOKS = 20;
const press = (key) => page.keyboard.press(key);

/** What has the focus: whether it is wanted, and what hides it from those who look for it. */
function judge(wanted) {
  const at = document.activeElement;
  const shown = at.closest("label") ?? at;
  const { outlineStyle, boxShadow } = getComputedStyle(shown);
  const after = getComputedStyle(shown, "::after").borderTopWidth;
  const hasRing = outlineStyle !== "none" || boxShadow !== "none" || parseFloat(after) >= 2;
  const box = shown.getBoundingClientRect();
  const [x, y] = [box.x + box.width / 2, box.y + Math.min(box.height, 40) / 2];
  const top = document.elementFromPoint(x, y);
  const isSeen = Boolean(top) && (shown.contains(top) || top.contains(shown));
  const fault = at === document.body || !document.hasFocus() ? "" : !hasRing ? "no ring" : !isSeen ? `is hidden by ${top?.outerHTML.slice(0, 80)} at ${y}` : "";
  return { isThere: at.matches(wanted), fault, html: at.outerHTML.slice(0, 160) };
}

/** Tab until what is wanted has the focus. */
async function tabTo(wanted, key = "Tab") {
  const passed = [];
  for (let steps = 0; steps < MOST_STEPS; steps += 1) {
    await press(key);
    let { isThere, fault, html } = await page.evaluate(judge, wanted);
    for (let looks = 0; fault && looks < MOST_LOOKS; looks += 1) { // a style may come a frame later
      await page.evaluate(() => new Promise(requestAnimationFrame));
      ({ isThere, fault, html } = await page.evaluate(judge, wanted));
    }
    if (fault) said.faults.push(`${fault}: ${html}`);
    if (isThere) return;
    passed.push(html);
  }
  throw new Error(`no key leads to ${wanted}: ${passed.join("\n")}`);
}

async function type(name, text) {
  await tabTo(`[name="${name}"]`);
  await page.keyboard.type(text);
}

/** Tab through a dialog: what lies behind it must not get the focus. */
async function isHeld() {
  for (let steps = 0; steps < 12; steps += 1) {
    await press("Tab");
    const isOutside = await page.evaluate(() => {
      const at = document.activeElement;
      return at !== document.body && !at.closest("dialog[open]");
    });
    if (isOutside) return false;
  }
  return true;
}

/** Close the dialog, and say whether the focus is back at what opened it. */
async function isGivenBack(opener) {
  await press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
  return page.evaluate((wanted) => document.activeElement.matches(wanted), opener);
}

async function begin(seen) {
  await page.goto(url);
  await page.locator("main h1").waitFor();
  await press("Tab");
  seen.skips = await page.evaluate(() => document.activeElement.matches(".skip"));
  await press("Enter");
  await tabTo('main a[href$="/register"]');
  await press("Enter");
  await page.waitForURL("**/register");
  await type("username", "keys");
  await type("email", "keys@example.com");
  await type("password", "secret1");
  await press("Enter");
  await page.waitForURL("**/create*");
  await page.locator(".empty").waitFor();
}

async function make(seen) {
  await type("prompt", "a lighthouse in fog");
  await tabTo('[name="size"]');
  await press("ArrowRight");
  await tabTo('[name="n"]');
  await press("ArrowRight");
  seen.n = await page.evaluate(() => document.querySelector('[name="n"]:checked').value);
  await tabTo(".more summary");
  await press("Enter");
  await type("negative_prompt", "boats");
  await tabTo(".send .btn-primary");
  await press("Enter");
  await page.locator(".tile a").nth(1).waitFor({ timeout: 60_000 });
  await tabTo(".tile a");
  await press("Enter");
  await page.locator(".canvas img").waitFor();
}

async function useIt(seen) {
  const before = page.url();
  await press("ArrowRight");
  await page.waitForURL((address) => address.href !== before);
  await page.locator(".canvas img").waitFor();
  const share = ".side .grid-cols-2 button";
  await tabTo(share);
  await press("Enter");
  await page.locator("dialog[open]").waitFor();
  seen.held = await isHeld();
  seen.givenBack = await isGivenBack(share);
  await tabTo(".side a.btn-primary");
  const download = page.waitForEvent("download");
  await press("Enter");
  seen.saved = (await download).suggestedFilename().split(".").pop();
  await press("Escape");
  await page.waitForURL((address) => !address.pathname.includes("/images/"));
}

async function lookAround(seen) {
  await tabTo('nav a[href$="/gallery"]', "Shift+Tab");
  await press("Enter");
  await page.locator(".face img").nth(1).waitFor();
  await tabTo('input[type="search"]');
  await page.keyboard.type("no such thing");
  await page.locator(".empty").waitFor();
  await tabTo(".empty button");
  await press("Enter");
  await page.locator(".face img").nth(1).waitFor();
  await tabTo(".face");
  await press("ArrowRight");
  seen.second = await page.evaluate(() => document.querySelectorAll(".face")[1] === document.activeElement);
}

async function leave(seen) {
  await tabTo('nav a[href$="/account"]', "Shift+Tab");
  await press("Enter");
  await page.locator("#sessions li").first().waitFor();
  await tabTo("main .btn-error");
  await press("Enter");
  await page.locator("dialog[open]").waitFor();
  seen.field = await page.evaluate(() => document.activeElement.getAttribute("name"));
  await page.keyboard.type("secret1");
  await press("Enter");
  await page.locator("main .headline").waitFor();
}

await run(async (seen) => {
  await begin(seen);
  await make(seen);
  await useIt(seen);
  await lookAround(seen);
  await leave(seen);
});
