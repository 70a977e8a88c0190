import { shallowRef } from "vue";
import { remember, remembered } from "./memory";

const dark = matchMedia("(prefers-color-scheme: dark)");
const chosen = shallowRef(remembered<"light" | "dark" | null>("theme", null));
export const isDark = shallowRef(false);

export function applyTheme(): void {
  isDark.value = chosen.value ? chosen.value === "dark" : dark.matches;
  if (chosen.value) document.documentElement.dataset.theme = chosen.value;
}

export function switchTheme(): void {
  chosen.value = isDark.value ? "light" : "dark";
  remember("theme", chosen.value);
  applyTheme();
}

dark.addEventListener("change", applyTheme);
