// What the scripts that use the reference client in a real browser share.
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";

const SIZES = {
  phone: { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true },
  laptop: { viewport: { width: 1280, height: 800 } },
  wide: { viewport: { width: 2560, height: 1400 } },
};
// What the page is refused on purpose; and axe, which asks for styles while there is no network.
const EXPECTED =
  /Failed to load resource.*(400|401|403|404|409|410|429|503)|^Couldn't load preload assets/;
// A script that stands still for so long never ends: a page may wait for a frame that does not come.
const PATIENCE = 300_000;
// What no answer comes to, on purpose.
const UNREACHABLE = /Failed to load resource.*ERR_(INTERNET_DISCONNECTED|CONNECTION_|EMPTY_RESPONSE)/;

/**
 * Open a page, and return it with what looks at it and what it complained of. It may call the services
 * of `own` alone. Colours are the same in every size and language: one run looks at both themes with axe.
 */
export async function open({ executablePath, folder, size, language, own, axe = themesOf(size, language) }) {
  const args = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
  args.push("--disable-background-networking", "--disable-component-update", "--disable-sync");
  const browser = await chromium.launch({ executablePath, args });
  const context = await browser.newContext({
    ...SIZES[size],
    locale: language === "zh" ? "zh-CN" : "en-GB",
    reducedMotion: "reduce",
  });
  // What the policy of the page forbids is an error as well, wherever it happens.
  await context.addInitScript(() =>
    addEventListener("securitypolicyviolation", ({ effectiveDirective, blockedURI, sourceFile }) =>
      console.error("policy:", effectiveDirective, blockedURI, sourceFile),
    ),
  );
  const page = await context.newPage();
  page.setDefaultTimeout(20_000);
  const said = { seen: {}, screens: [], faults: [], complaints: [], strangers: [] };
  page.on("console", (message) => {
    const isBad = ["error", "warning"].includes(message.type());
    const isExpected = EXPECTED.test(message.text()) || UNREACHABLE.test(message.text());
    if (isBad && !isExpected) said.complaints.push(message.text());
  });
  page.on("request", (request) => {
    const isOwn = !own || own.some((one) => request.url().startsWith(one));
    if (request.url().startsWith("http") && !isOwn) said.strangers.push(request.url());
  });
  page.on("pageerror", (error) => said.complaints.push(String(error)));

  /** Look at a screen in both themes: with the eyes of axe, and with a camera. */
  async function look(name) {
    said.screens.push(name);
    // What a toast says is gone again soon.
    await page.evaluate(() => document.querySelectorAll(".toasts .close").forEach((one) => one.click()));
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme, reducedMotion: "reduce" });
      const isFull = !(await page.locator("dialog[open]").count());
      if (isFull) await page.evaluate(() => scrollTo(0, 0));
      const path = `${folder}/${size}-${language}-${colorScheme}-${name}.png`;
      await page.screenshot({ path, fullPage: isFull });
      if (!axe.includes(colorScheme)) continue;
      const { violations } = await new AxeBuilder({ page }).setLegacyMode(true).analyze();
      for (const { id, nodes } of violations) {
        const [{ html, failureSummary }] = nodes;
        said.faults.push(`${name}, ${colorScheme}: ${id}: ${html.slice(0, 300)} ${failureSummary}`);
      }
    }
    await page.emulateMedia({ colorScheme: "light", reducedMotion: "reduce" });
    const isTooWide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
    if (isTooWide) said.faults.push(`${name} is wider than the window`);
  }

  /** Run the steps, close the browser, and print what was seen. */
  async function run(steps) {
    try {
      await Promise.race([steps(said.seen), standstill()]);
      said.seen.end = "reached";
    } catch (error) {
      const text = await page.locator("body").innerText({ timeout: 5000 }).catch(String);
      said.seen.error = `${error.stack ?? error}\n${page.url()} shows:\n${text.slice(0, 2000)}`;
      const path = `${folder}/${size}-${language}-broken.png`;
      await page.screenshot({ path, timeout: 5000 }).catch(() => {}); // if it draws nothing any more
    } finally {
      await browser.close();
    }
    console.log(JSON.stringify(said));
    process.exit();
  }

  return { page, look, run, said };
}

function standstill() {
  return new Promise((_, reject) => {
    setTimeout(() => reject(new Error("no end after five minutes")), PATIENCE).unref();
  });
}

function themesOf(size, language) {
  return size === "laptop" && language === "en" ? ["light", "dark"] : ["light"];
}

/** The API as another program calls it. */
export function caller(url) {
  return async function call(method, path, body, token) {
    const headers = { "Content-Type": "application/json" };
    if (token) headers.Authorization = `Bearer ${token}`;
    const answer = await fetch(`${url}/api${path}`, { method, headers, body: body && JSON.stringify(body) });
    return { ...(await answer.json()), status: answer.status };
  };
}

export async function register(url, username) {
  const form = new FormData();
  const account = { username, password: "secret1", email: `${username}@example.com` };
  for (const [name, value] of Object.entries(account)) form.append(name, value);
  const answer = await fetch(`${url}/api/auth/register`, { method: "POST", body: form });
  if (!answer.ok) throw new Error(await answer.text());
  return account;
}

/** Log in by the page, and go on to an address. */
export async function logIn(page, url, account, next) {
  await page.goto(`${url}/login?next=${encodeURIComponent(next)}`);
  await page.locator('main [name="username"]').fill(account.username);
  await page.locator('main [name="password"]').fill(account.password);
  await page.locator("main form .btn-primary").click();
  await page.waitForURL(`**${next}`);
}

export const PNG = Buffer.from(
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
  "base64",
);
