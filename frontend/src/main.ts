import { createApp } from "vue";
import App from "./App.vue";
import { i18n, preferredLanguage, setLanguage } from "./i18n";
import { router } from "./router";
import { reloadedForOther } from "./service";
import { applyTheme } from "./theme";
import "./styles/main.css";

if (!reloadedForOther()) {
  applyTheme();
  await setLanguage(preferredLanguage());
  createApp(App).use(i18n).use(router).mount("#app");
}
