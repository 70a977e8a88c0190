import { expect, test } from "vitest";
import { describeClient } from "./clients";

const MOZILLA = "Mozilla/5.0";

test.each([
  [`${MOZILLA} (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0`, "Firefox · Linux"],
  [
    `${MOZILLA} (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0`,
    "Edge · Windows",
  ],
  [
    `${MOZILLA} (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1`,
    "Safari · iPhone",
  ],
  [
    `${MOZILLA} (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Mobile Safari/537.36`,
    "Chrome · Android",
  ],
  ["curl/8.14.1", "curl"],
  ["python-requests/2.32.5", "Python"],
  ["nightly-job", "nightly-job"],
  ["", "–"],
  [null, "–"],
])("%s is %s", (client, name) => {
  expect(describeClient(client)).toBe(name);
});
