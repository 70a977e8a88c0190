import { resolve } from "node:path";
import tailwind from "@tailwindcss/vite";
import i18n from "@intlify/unplugin-vue-i18n/vite";
import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vite";

const API = process.env.API ?? "http://localhost:8000";
const out = { outDir: process.env.OUT ?? "../static/app", sourcemap: false, target: "es2022" };

// `npm run build` makes the page, and then, with `--mode api`, its client of the API as one module.
export default defineConfig(({ mode }) =>
  mode === "api"
    ? {
        publicDir: false,
        build: {
          ...out,
          emptyOutDir: false,
          minify: false,
          lib: { entry: "src/api/index.ts", formats: ["es"], fileName: () => "assets/api.js" },
        },
      }
    : {
        // Files are found below the <base> of index.html, which the service fills in.
        base: "./",
        plugins: [
          vue(),
          tailwind(),
          i18n({ include: resolve("src/locales/*.json"), compositionOnly: true, fullInstall: false }),
        ],
        define: { __VUE_OPTIONS_API__: false },
        // No data: addresses, which the page's policy forbids.
        build: {
          ...out,
          emptyOutDir: true,
          assetsInlineLimit: 0,
          modulePreload: { polyfill: false },
          // What every screen needs is one file, not one for each set of screens that share it.
          rolldownOptions: { output: { codeSplitting: { groups: [{ name: "start", tags: ["$initial"] }] } } },
        },
        server: { proxy: { "/api": API } },
      },
);
