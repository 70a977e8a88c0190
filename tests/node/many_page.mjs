// Thousands of pictures: `node many_page.mjs CHROMIUM URL FOLDER SIZE LANGUAGE TOKEN`. It scrolls to the
// end, as fast as pages come, and prints the longest time without a frame.
import { open } from "./page.mjs";

const [executablePath, url, folder, size, language, token] = process.argv.slice(2);
const { page, run } = await open({ executablePath, folder, size, language, own: [url], axe: [] });
await page.addInitScript(([key, value]) => localStorage.setItem(key, value), [`token ${url}/api`, token]);

/** Scroll down in every frame, and up again; measure frames, tiles and what jumps. */
async function scrollThrough() {
  return page.evaluate(
    () =>
      new Promise((resolve, reject) => {
        const found = { longest: 0, tiles: 0, shift: 0, jumped: [], frames: 0 };
        const list = document.querySelector(".grid-of-pictures");
        new PerformanceObserver((entries) => {
          for (const { value, hadRecentInput, sources } of entries.getEntries()) {
            if (hadRecentInput) continue;
            found.shift += value;
            for (const { node, previousRect, currentRect } of sources) {
              const what = node?.outerHTML?.slice(0, 200);
              found.jumped.push({ what, from: previousRect.toJSON(), to: currentRect.toJSON() });
            }
          }
        }).observe({ type: "layout-shift" });
        let last = performance.now();
        let height = 0;
        const watch = setInterval(() => {
          if (performance.now() - last > 10_000) reject(new Error("no frame for ten seconds"));
        }, 1000);
        const frame = (now) => {
          found.longest = Math.max(found.longest, now - last);
          found.frames += 1;
          last = now;
          found.tiles = Math.max(found.tiles, list.childElementCount);
          scrollBy({ top: 400, behavior: "instant" });
          const isEnd = scrollY + innerHeight >= document.documentElement.scrollHeight - 2;
          const isLoading = Boolean(document.querySelector("main .spinner"));
          if (isEnd && !isLoading && document.documentElement.scrollHeight === height) {
            clearInterval(watch);
            return resolve(found);
          }
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
  await page.screenshot({ path: `${folder}/${size}-many.png` });

  if (size !== "laptop") return; // frames of a wide screen take long without a graphics card
  // Back from a picture in the middle, one is where one was, at that picture.
  const place = await page.evaluate(() => {
    scrollTo({ top: document.documentElement.scrollHeight / 2, behavior: "instant" });
    return new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(() => next(scrollY))));
  });
  const address = await page.evaluate(() => {
    const isInSight = (face) => face.getBoundingClientRect().top > 100;
    const face = [...document.querySelectorAll(".face")].find(isInSight);
    face.click();
    return face.getAttribute("href");
  });
  await page.locator(".canvas img").waitFor();
  await page.goBack();
  await page.waitForFunction((href) => document.activeElement?.getAttribute("href") === href, address);
  seen.moved = await page.evaluate((place) => Math.abs(scrollY - place), place);
});
