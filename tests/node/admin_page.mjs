// The admin's screens of the reference client:
// `node admin_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE`. The accounts `root`, an admin, `bob` and
// `carol` are there, with a job of bob's that waits and one that has failed.
import { logIn, open } from "./page.mjs";

const [executablePath, url, folder, size, language] = process.argv.slice(2);
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url] });
const dialog = page.locator("dialog[open]");
const rows = page.locator(".data tbody tr");
const go = (place) => page.locator(`main nav a[href$="/admin${place}"]`).click();
const count = (number) =>
  page.waitForFunction((wanted) => document.querySelectorAll(".data tbody tr").length === wanted, number);

async function overview(seen) {
  await page.locator("svg rect").first().waitFor();
  await look("admin-week");
  await page.locator('[name="range"][value="month"]').check({ force: true });
  await page.waitForFunction(() => document.querySelector(".chart svg").viewBox.baseVal.width === 30);
  await page.locator(".chart summary").first().click();
  await look("admin-month");
  seen.days = await page.locator(".chart").first().locator("tbody tr").count();
  await page.locator('[name="range"][value="day"]').check({ force: true });
  await page.waitForFunction(() => document.querySelector(".chart svg").viewBox.baseVal.width < 30);
  await look("admin-day");
}

async function users(seen) {
  await go("/users");
  await count(3);
  await look("admin-users");
  await page.locator('[name="q"]').fill("bob");
  await count(1);
  await rows.locator(".btn").click();
  await look("admin-user");
  await dialog.locator(".btn-sm").first().click();
  await page.locator(".data .badge-error").waitFor();
  await dialog.locator(".btn-sm").first().click();
  await page.locator(".data .badge-error").waitFor({ state: "detached" });
  await dialog.locator('[name="limits.dailyImages"]').fill("0");
  await dialog.locator("form .btn").first().click();
  await dialog.locator('[name="limits.dailyImages"][aria-invalid="true"]').waitFor();
  await dialog.locator('[name="limits.dailyImages"]').fill("7");
  await dialog.locator("form .btn").first().click();
  await page.locator(".data td", { hasText: "7" }).last().waitFor();
  await dialog.locator(".btn-sm").nth(2).click();
  seen.code = (await dialog.locator(".secret").innerText()).length > 20;
  await page.keyboard.press("Escape");

  await page.locator('[name="q"]').fill("carol");
  await page.locator(".data td", { hasText: "carol" }).first().waitFor();
  await count(1);
  await rows.locator(".btn").click();
  await dialog.locator(".btn-error").click();
  await dialog.locator('[name="name"]').fill("bob");
  await dialog.locator("button.btn-error").click();
  await dialog.locator('[name="name"][aria-invalid="true"]').waitFor();
  await dialog.locator('[name="name"]').fill("carol");
  await dialog.locator("button.btn-error").click();
  await count(0);
}

async function jobs() {
  await go("/jobs");
  await count(2);
  await look("admin-jobs");
  await page.locator('[name="status"]').selectOption("failed");
  await count(1);
  await rows.locator(".btn").click();
  await count(0);
  // What waited of bob was canceled when the account was closed.
  await page.locator('[name="status"]').selectOption("pending");
  await count(1);
  await rows.locator(".btn").click();
  await count(0);
  await page.locator('[name="status"]').selectOption("");
  await count(2);
  await page.locator('[name="error"]').fill("no such code");
  await count(0);
}

async function queue() {
  await go("/queue");
  await page.locator("main > .admin > .note").waitFor();
  await rows.first().locator(".btn").click();
  await rows.first().locator(".badge").waitFor();
  await page.locator("main .btn-sm").first().click();
  await page.locator("main .note").nth(1).waitFor();
  await look("admin-queue");
  await page.locator("main .btn-sm").first().click();
  await rows.first().locator(".btn").click();
  await page.locator(".data .badge").waitFor({ state: "detached" });
}

async function invites(seen) {
  await go("/invites");
  await page.locator("main .btn-primary").click();
  await dialog.locator('[name="note"]').fill("workshop");
  await dialog.locator('[name="uses"]').fill("20");
  await dialog.locator('[name="dailyImages"]').fill("50");
  await look("admin-invite");
  await dialog.locator(".btn-primary").click();
  const code = await dialog.locator(".secret").first().innerText();
  const link = await dialog.locator(".secret").nth(1).innerText();
  await look("admin-invite-made");
  await dialog.locator(".btn-primary").click();
  await count(1);
  // Whoever gets the link need not type the code, and no log of a server has it.
  const guest = await (await page.context().browser().newContext()).newPage();
  await guest.goto(link);
  seen.invited = (await guest.locator('[name="inviteCode"]').inputValue()) === code;
  seen.kept = new URL(guest.url()).hash;
  await guest.close();
  await look("admin-invites");
  await rows.locator(".btn").click();
  await rows.locator(".badge-outline").waitFor();
}

async function audit(seen) {
  await go("/audit");
  await rows.nth(5).waitFor();
  await look("admin-audit");
  await page.locator('[name="action"]').fill("user.delete");
  await count(1);
  for (const name of ["csv", "jsonl"]) {
    const download = page.waitForEvent("download");
    await page.locator(".filters .btn").nth(name === "csv" ? 0 : 1).click();
    seen[name] = (await download).suggestedFilename();
  }
}

await run(async (seen) => {
  await logIn(page, url, { username: "root", password: "secret1" }, "/admin");
  await overview(seen);
  await users(seen);
  await jobs();
  await queue();
  await invites(seen);
  await audit(seen);

  await page.evaluate(() => localStorage.clear());
  await logIn(page, url, { username: "bob", password: "secret1" }, "/admin");
  await page.locator(".empty").waitFor();
  await look("admin-forbidden");
  seen.menu = await page.locator('header a[href$="/admin"]').count();
});
