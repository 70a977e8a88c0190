// Pictures in, in a real browser: references by button, clipboard and drop, masks by mouse and by
// keys, and what is made of them: `node mask_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE TOKEN PICTURE`.
// PICTURE is the id of a finished picture. It prints what it saw, and leaves screenshots in the folder.
import { readFileSync } from "node:fs";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";

const SIZES = {
  phone: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true },
  laptop: { viewport: { width: 1280, height: 800 } },
};
const [executablePath, url, folder, size, language, token, picture] = process.argv.slice(2);

const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
});
const context = await browser.newContext({
  ...SIZES[size],
  locale: language === "zh" ? "zh-CN" : "en-GB",
  colorScheme: "light",
  reducedMotion: "reduce",
});
await context.addInitScript(([key, value]) => localStorage.setItem(key, value), [`token ${url}/api`, token]);
const page = await context.newPage();
page.setDefaultTimeout(20_000);
const complaints = [];
const strangers = [];
// What the page is refused on purpose.
const expected = /Failed to load resource.*(400|404|410)/;
page.on("console", (message) => {
  const isBad = ["error", "warning"].includes(message.type());
  if (isBad && !expected.test(message.text())) complaints.push(message.text());
});
page.on("pageerror", (error) => complaints.push(String(error)));
page.on("request", (request) => {
  const { protocol, origin } = new URL(request.url());
  if (protocol.startsWith("http") && origin !== url) strangers.push(request.url());
});

const faults = [];
const screens = [];
const seen = {};

/** Look at a screen in both themes: with the eyes of axe, and with a camera. */
async function look(name) {
  screens.push(name);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
    await page.screenshot({ path: `${folder}/${size}-${language}-${colorScheme}-${name}.png` });
    const { violations } = await new AxeBuilder({ page }).setLegacyMode(true).analyze();
    for (const { id, nodes } of violations) {
      const [{ html, failureSummary }] = nodes;
      faults.push(`${name}, ${colorScheme}: ${id}: ${html.slice(0, 300)} ${failureSummary}`);
    }
  }
  await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
  const isTooWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  if (isTooWide) faults.push(`${name} is wider than the window`);
}

const references = page.locator(".one .face img");
const dialog = page.locator("dialog");
const stage = page.locator(".stage[role=application]");
const painted = dialog.locator("[role=status]");
const draft = () => page.evaluate(() => JSON.parse(localStorage["atelier draft"]));
const file = (name) => ({ name, mimeType: "image/png", buffer: readFileSync(`${folder}/${name}`) });
const ask = async (path) => {
  const answer = await fetch(url + path, { headers: { Authorization: `Bearer ${token}` } });
  return (await answer.json()).data;
};

async function countReferences(number) {
  const isSo = (wanted) => document.querySelectorAll(".one .face img").length === wanted;
  await page.waitForFunction(isSo, number);
}

/** What a browser says when files are pasted or dropped. */
async function bring(kind, name) {
  const bytes = [...readFileSync(`${folder}/${name}`)];
  await page.evaluate(([kind, name, bytes]) => {
    const data = new DataTransfer();
    data.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
    const common = { bubbles: true, cancelable: true };
    const event =
      kind === "paste"
        ? new ClipboardEvent("paste", { ...common, clipboardData: data })
        : new DragEvent(kind, { ...common, dataTransfer: data });
    document.querySelector(".area").dispatchEvent(event);
  }, [kind, name, bytes]);
}

/** Send the form, and wait for the picture. Returns its record. */
async function make() {
  const answer = page.waitForResponse((one) => one.url().endsWith("/generate"));
  await page.locator("form .btn-primary").click();
  const { data } = await (await answer).json();
  const [{ id }] = data.records;
  await page.locator(`.tile a[href$="/images/${id}"]`).waitFor({ timeout: 60_000 });
  return id;
}

async function save() {
  await dialog.locator(".btn-primary").click();
  await dialog.waitFor({ state: "detached" });
  await page.locator(".one .badge").waitFor();
}

// -- The journeys ---------------------------------------------------------------------------------

async function bringPictures() {
  await page.goto(`${url}/create`);
  const input = page.locator('.area input[type="file"]');
  await input.setInputFiles({ name: "notes.txt", mimeType: "text/plain", buffer: Buffer.from("no picture") });
  await page.locator('.area input[aria-invalid="true"]').waitFor();
  await input.setInputFiles({ name: "fake.png", mimeType: "image/png", buffer: Buffer.from("no picture") });
  await page.locator(".area [role=alert] p", { hasText: "fake.png" }).waitFor();
  await look("wrong");
  await input.setInputFiles(file("a.png"));
  await countReferences(1);
  await bring("paste", "b.png");
  await countReferences(2);
  await bring("dragover", "c.png");
  await page.locator(".area.over").waitFor();
  await bring("drop", "c.png");
  await countReferences(3);
  seen.errors = await page.locator(".area [role=alert]").count();

  const before = (await draft()).references;
  await page.locator(".one .face").last().focus();
  await page.keyboard.press("ArrowLeft");
  await page.keyboard.press("ArrowLeft");
  const [first] = (await draft()).references;
  seen.moved = first.upload === before[2].upload;
  await look("references");
  await page.reload();
  await countReferences(3);
  seen.kept = (await draft()).references.length;
  await page.locator(".one .face").first().focus();
  await page.keyboard.press("Delete");
  await countReferences(2);
  await page.locator(".one .corner").last().click();
  await countReferences(1);
}

async function paintByHand() {
  await page.locator('[name="prompt"]').fill("stars");
  await page.locator('[name="mask"]').click();
  await stage.waitFor();
  await dialog.locator(".btn-primary:enabled").click();
  await dialog.locator("p[role=alert]").waitFor();
  const box = await stage.boundingBox();
  const at = (x, y) => [box.x + box.width * x, box.y + box.height * y];
  if (size === "phone") await draw([0.2, 0.3], [0.7, 0.3]);
  else {
    await page.mouse.move(...at(0.2, 0.3));
    await page.mouse.down();
    await page.mouse.move(...at(0.7, 0.3), { steps: 8 });
    await page.mouse.up();
  }
  const once = await painted.textContent();
  await look("mask");
  await dialog.locator(".tools button").nth(2).click(); // undo
  const none = await painted.textContent();
  await dialog.locator(".tools button").nth(3).click(); // redo
  seen.undone = once !== none && (await painted.textContent()) === once;
  await dialog.locator(".tools button").nth(4).click(); // invert
  await dialog.locator(".tools button").nth(4).click();
  seen.inverted = (await painted.textContent()) === once;
  await save();
  await look("masked");
  seen.byHand = await make();
}

async function draw(from, to) {
  const box = await stage.boundingBox();
  const touch = await context.newCDPSession(page);
  const at = ([x, y]) => [{ x: box.x + box.width * x, y: box.y + box.height * y }];
  await touch.send("Input.dispatchTouchEvent", { type: "touchStart", touchPoints: at(from) });
  for (const part of [0.25, 0.5, 0.75, 1]) {
    const touchPoints = at(from.map((value, index) => value + (to[index] - value) * part));
    await touch.send("Input.dispatchTouchEvent", { type: "touchMove", touchPoints });
  }
  await touch.send("Input.dispatchTouchEvent", { type: "touchEnd", touchPoints: [] });
}

/** Without what was painted by hand, which is there again. */
async function paintByKeys() {
  await page.reload();
  await page.locator(".one .badge").waitFor();
  await page.locator('[name="mask"]').focus();
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => !document.querySelector("dialog .btn-primary")?.disabled);
  seen.focus = await stage.evaluate((element) => element === document.activeElement);
  const before = await painted.textContent();
  await dialog.locator(".tools button").last().click(); // clear
  seen.paintedAgain = before !== (await painted.textContent());
  await stage.focus();
  for (let times = 0; times < 4; times += 1) await page.keyboard.press("ArrowDown");
  await page.keyboard.down("Space");
  for (let times = 0; times < 3; times += 1) await page.keyboard.press("ArrowRight");
  await page.keyboard.up("Space");
  await page.keyboard.press("e");
  await page.keyboard.press("Space"); // rubs out the end of it
  await look("mask-by-keys");
  await save();
  seen.byKeys = await make();
}

async function goOn() {
  await page.goto(`${url}/images/${seen.byKeys}`);
  await page.locator(".inputs img").nth(1).waitFor();
  await look("made-from");
  await page.goto(`${url}/images/${picture}`);
  await page.locator(".canvas img").waitFor();
  await page.locator(".side .chip .icon").last().waitFor();
  const words = language === "zh" ? ["在此基础上继续", "用作参考图"] : ["Go on from this", "Use as reference"];
  await page.locator(".side .chip", { hasText: words[0] }).click();
  await page.waitForURL("**/create*");
  await countReferences(1);
  seen.goesOn = (await draft()).references;
  const id = await make();
  seen.parent = (await ask(`/api/v1/images/${id}`)).parentId;
  await page.locator(`.tile a[href$="/images/${id}"]`).focus();
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await countReferences(2);
  await page.goto(`${url}/images/${id}`);
  await page.locator('.side a[href$="/images/' + picture + '"]').last().click();
  await page.waitForURL(`**/images/${picture}`);
}

/** Models that take no pictures, nothing but pictures, or sizes said in another way. */
async function tryModels() {
  await page.goto(`${url}/create`);
  await countReferences(2);
  const model = page.locator('[name="model"]');
  await model.selectOption("words");
  await page.locator("form .btn-primary").click();
  await page.locator(".area .note").waitFor();
  await look("refused");
  await page.locator(".area .note .chip").first().click();
  await model.selectOption("edits");
  await page.locator("form .btn-primary").click();
  await page.locator(".area [role=alert]").waitFor(); // one is too many
  await page.locator(".one .corner").first().click();
  await countReferences(1);
  await page.locator('[name="prompt"]').fill("");
  const wordless = await make();
  const record = await ask(`/api/v1/images/${wordless}`);
  seen.wordless = [record.prompt, record.inputs.length];
  await look("wordless");
  await page.locator(".one .corner").first().click();
  await model.selectOption("shapes");
  await page.locator('input[name="aspect_ratio"][value="16:9"]').check({ force: true });
  await page.locator(".more summary").click();
  await page.locator('[name="output_format"]').selectOption("jpeg");
  await page.locator('[name="seed"]').fill("999");
  await page.locator('[name="seed"]').press("Enter");
  await page.locator('[name="prompt"]').fill("a lake");
  await look("shapes");
  const { params } = await ask(`/api/v1/images/${await make()}`);
  const { aspect_ratio, output_format, seed } = params.requested ?? params;
  seen.shapes = [aspect_ratio ?? params.aspect_ratio, output_format ?? params.output_format, seed ?? params.seed];
}

try {
  await bringPictures();
  await paintByHand();
  await paintByKeys();
  await goOn();
  await tryModels();
} catch (error) {
  seen.error = String(error.stack ?? error);
  await page.screenshot({ path: `${folder}/${size}-${language}-broken.png` });
} finally {
  await browser.close();
}
console.log(JSON.stringify({ seen, screens, faults, complaints, strangers }));
