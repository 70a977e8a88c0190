// One's own account in the reference client, topic by topic:
// `node account_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE INVITE`.
import { createHmac } from "node:crypto";
import { caller, logIn, open, PNG, register } from "./page.mjs";

const [executablePath, url, folder, size, language, invite] = process.argv.slice(2);
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url] });
const call = caller(url);
const part = (id) => page.locator(`#${id}`);
const dialog = page.locator("dialog[open]");

/** What an authenticator app shows (RFC 6238). */
function codeOf(secret) {
  const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
  const bits = [...secret.replaceAll(" ", "")].map((one) => alphabet.indexOf(one).toString(2).padStart(5, "0")).join("");
  const key = Buffer.from(bits.match(/.{8}/g).map((byte) => parseInt(byte, 2)));
  const step = Buffer.alloc(8);
  step.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 30_000)));
  const hash = createHmac("sha1", key).update(step).digest();
  const number = hash.readUInt32BE(hash.at(-1) & 15) & 0x7fffffff;
  return String(number % 1_000_000).padStart(6, "0");
}

async function profile(seen, account) {
  await part("profile").locator('[name="avatar"]').setInputFiles({ name: "me.png", mimeType: "image/png", buffer: PNG });
  await part("profile").locator('.avatar img[src^="blob:"]').waitFor();
  await part("profile").locator("button.btn").click();
  await page.locator('#profile .avatar img[src*="/uploads/"]').waitFor();
  await part("profile").locator("button.link").click();
  await page.locator("#profile .avatar img").waitFor({ state: "detached" });

  await part("profile").locator('[name="email"]').fill("new@example.com");
  await part("profile").locator('[name="password"]').fill("wrong-one");
  await part("profile").locator("button.btn").click();
  await page.locator('#profile [name="password"][aria-invalid="true"]').waitFor();
  seen.focus = await page.evaluate(() => document.activeElement.getAttribute("name"));
  await part("profile").locator('[name="password"]').fill(account.password);
  await part("profile").locator("button.btn").click();
  await page.locator('#profile [name="password"]').waitFor({ state: "detached" });
}

async function password(account) {
  await part("password").locator('[name="oldPassword"]').fill(account.password);
  account.password = "secret2";
  await part("password").locator('[name="newPassword"]').fill(account.password);
  await part("password").locator("button.btn").click();
  await page.locator(".toasts .one").first().waitFor();
}

async function sessions(seen, account) {
  await call("POST", "/auth/login", { username: account.username, password: account.password });
  await page.reload();
  await part("sessions").locator("li").nth(1).waitFor();
  seen.sessions = await part("sessions").locator("li").count();
  await part("sessions").locator("li .btn").click();
  await page.locator("#sessions li").nth(1).waitFor({ state: "detached" });
}

async function keys(seen) {
  await part("keys").locator("header .btn").click();
  await dialog.locator(".btn-primary").click();
  await dialog.locator('[name="name"][aria-invalid="true"]').waitFor();
  await dialog.locator('[name="name"]').fill("nightly job");
  await dialog.locator('[name="dailyImages"]').fill("5");
  await look("key-form");
  await dialog.locator(".btn-primary").click();
  const key = await dialog.locator(".secret").first().innerText();
  await look("key-made");
  await dialog.locator(".btn-primary").click();
  seen.key = (await call("GET", "/v1/images/history", undefined, key)).status;
  await part("keys").locator("li .btn").click();
  await dialog.locator(".btn-error").click();
  await page.locator("#keys li").waitFor({ state: "detached" });
  seen.revoked = (await call("GET", "/v1/images/history", undefined, key)).status;
}

async function redeem(seen) {
  await part("redeem").locator('[name="code"]').fill("no such code");
  await part("redeem").locator(".btn").click();
  await part("redeem").locator('[role="alert"] p').waitFor();
  await part("redeem").locator('[name="code"]').fill(invite);
  await part("redeem").locator(".btn").click();
  await page.waitForFunction(() => document.querySelector("#usage [role=meter]")?.ariaValueMax === "77");
  seen.redeemed = true;
}

async function secondFactor(seen, account) {
  await part("second-factor").locator(".btn").click();
  await dialog.locator('[name="password"]').fill(account.password);
  await dialog.locator(".btn-primary").click();
  await dialog.locator(".qr").waitFor();
  await dialog.locator("summary").click();
  await look("second-factor");
  const secret = await dialog.locator(".secret").innerText();
  await dialog.locator('[name="code"]').fill("000000");
  await dialog.locator(".btn-primary").click();
  await dialog.locator('[name="code"][aria-invalid="true"]').waitFor();
  await dialog.locator('[name="code"]').fill(codeOf(secret));
  await dialog.locator(".btn-primary").click();
  await dialog.locator("pre", { hasText: "\n" }).waitFor();
  const codes = (await dialog.locator(".secret").innerText()).split("\n");
  await look("recovery-codes");
  const download = page.waitForEvent("download");
  await dialog.locator(".btn-sm").nth(1).click();
  seen.saved = (await download).suggestedFilename();
  await dialog.locator(".btn-primary").click();

  await page.locator(".account .head .btn").click();
  await page.locator("main .headline").waitFor();
  await page.goto(`${url}/login?next=/account`);
  await page.locator('main [name="username"]').fill(account.username);
  await page.locator('main [name="password"]').fill(account.password);
  await page.locator("main form .btn-primary").click();
  await page.locator('main [name="code"]').fill(codes[0]);
  await look("login-code");
  await page.locator("main form .btn-primary").click();
  await page.waitForURL("**/account");
  await part("second-factor").locator(".btn").nth(1).click();
  await dialog.locator('[name="password"]').fill(account.password);
  await dialog.locator('[name="code"]').fill(codes[1]);
  await look("turn-off");
  await dialog.locator(".btn-error").click();
  await page.locator("#second-factor .badge-outline").waitFor();
  seen.codes = codes.length;
}

await run(async (seen) => {
  const account = await register(url, `ruth-${size}`);
  await logIn(page, url, account, "/account");
  await part("keys").locator("p").first().waitFor();
  await page.locator("#usage [role=meter]").first().waitFor();
  await look("account");
  await profile(seen, account);
  await password(account);
  await sessions(seen, account);
  await keys(seen);
  await redeem(seen);
  await secondFactor(seen, account);
  await look("account-end");
});
