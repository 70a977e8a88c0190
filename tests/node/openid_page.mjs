// Log-in at an OpenID provider by the reference client, and linking it to an account:
// `node openid_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE PROVIDER`.
import { logIn, open, register } from "./page.mjs";

const [executablePath, url, folder, size, language, provider] = process.argv.slice(2);
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url, provider] });
const dialog = page.locator("dialog[open]");
const button = page.locator("main form button.btn:not(.btn-primary)");

/** Be somebody there, as a browser that has logged in at the provider is. */
async function beAtProvider(name) {
  await page.goto(`${provider}/login?name=${name}&preferred_username=${name}`);
}

await run(async (seen) => {
  await beAtProvider("carol");
  await page.goto(`${url}/login?next=/account`);
  await button.waitFor();
  await look("openid-login");
  await button.click();
  await page.waitForURL(`${url}/account`);
  await page.locator("#openid li").waitFor();
  seen.opened = await page.locator("main h1").innerText();
  await page.locator(".account .head .btn").click();
  await page.locator("main .headline").waitFor();

  // Somebody with an account of their own links another log-in to it, and uses it.
  await beAtProvider("ruth-elsewhere");
  const account = await register(url, "ruth");
  await logIn(page, url, account, "/account");
  await page.locator("#openid .btn").click();
  await dialog.locator('[name="password"]').waitFor();
  seen.address = new URL(page.url()).search;
  await dialog.locator('[name="password"]').fill("wrong-one");
  await dialog.locator(".btn-primary").click();
  await dialog.locator('[aria-invalid="true"]').waitFor();
  await look("openid-link");
  await dialog.locator('[name="password"]').fill(account.password);
  await dialog.locator(".btn-primary").click();
  await page.locator("#openid li").waitFor();
  await page.evaluate(() => localStorage.clear());
  await page.goto(`${url}/login`);
  await button.click();
  await page.waitForURL(`${url}/create`);
  await page.goto(`${url}/account`);
  await page.locator("#openid li").waitFor();
  seen.linked = await page.locator("main h1").innerText();
  await page.locator("#openid .btn").nth(1).click();
  await dialog.locator('[name="password"]').fill(account.password);
  await dialog.locator(".btn-primary").click();
  await page.locator("#openid li").waitFor({ state: "detached" });

  // What went wrong there is said here.
  await page.evaluate(() => localStorage.clear());
  await page.goto(`${url}/login?error=oidc_denied`);
  await page.locator('[role="alert"] p').waitFor();
  await look("openid-denied");
  await page.goto(`${url}/login?loginCode=of-another-tab`);
  await page.locator('[role="alert"] p').waitFor();
  await page.locator("main form button.link").click();
  await button.waitFor();
});
