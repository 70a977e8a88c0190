// Thousands of pictures: `node many_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE TOKEN`. It scrolls to the
// end, as fast as pages come, and prints the longest time without a frame.
import { open } from "./page.mjs";

const [executablePath, url, folder, size, language, token] = process.argv.slice(2);
const { page, look, run } = await open({ executablePath, folder, size, language, own: [url], axe: [] });
await page.addInitScript(([key, value]) => localStorage.setItem(key, value), [`token ${url}/api`, token]);

/** Scroll down in every frame, and up again; measure frames, tiles and what jumps. */
async function scrollThrough() {
  return page.evaluate(
    () =>
      new Promise((resolve) => {
        const found = { longest: 0, tiles: 0, shift: 0, frames: 0 };
        const list = document.querySelector(".grid-of-pictures");
        new PerformanceObserver((entries) => {
          for (const { value, hadRecentInput } of entries.getEntries()) found.shift += hadRecentInput ? 0 : value;
        }).observe({ type: "layout-shift" });
        let last = performance.now();
        let height = 0;
        const frame = (now) => {
          found.longest = Math.max(found.longest, now - last);
          found.frames += 1;
          last = now;
          found.tiles = Math.max(found.tiles, list.childElementCount);
          scrollBy({ top: 400, behavior: "instant" });
          const isEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
          const isLoading = Boolean(document.querySelector("main .spinner"));
          if (isEnd && !isLoading && document.documentElement.scrollHeight === height) return resolve(found);
          height = document.documentElement.scrollHeight;
          requestAnimationFrame(frame);
        };
        requestAnimationFrame(frame);
      }),
  );
}

await run(async (seen) => {
  await page.goto(`${url}/gallery`);
  await page.locator(".face img").nth(5).waitFor();
  Object.assign(seen, await scrollThrough());
  await page.locator("main .keys").waitFor();
  seen.pictures = Number((await page.locator(".head [role=status]").innerText()).replace(/\D/g, ""));
  // To a picture in the middle, and back to where one was.
  await page.evaluate(() => scrollTo({ top: document.documentElement.scrollHeight / 2, behavior: "instant" }));
  await page.waitForFunction(() => {
    const at = document.elementFromPoint(innerWidth / 2, innerHeight / 2);
    return at?.closest(".face")?.querySelector("img")?.complete;
  });
  const before = await page.evaluate(() => scrollY);
  await page.mouse.click((await page.evaluate(() => innerWidth)) / 2, (await page.evaluate(() => innerHeight)) / 2);
  await page.locator(".canvas").waitFor();
  await page.goBack();
  await page.waitForFunction(() => document.activeElement.classList.contains("face"));
  seen.place = Math.abs((await page.evaluate(() => scrollY)) - before) < 5;
  seen.focus = await page.evaluate(() => {
    const { top, bottom } = document.activeElement.getBoundingClientRect();
    return top < innerHeight && bottom > 0;
  });
  await page.screenshot({ path: `${folder}/${size}-many.png` });
});
