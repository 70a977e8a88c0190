import { shallowRef } from "vue";
import { createRouter, createWebHistory } from "vue-router";
import { api } from "./service";
import { i18n } from "./i18n";
import { tell } from "./toasts";
import LandingView from "./views/LandingView.vue";

declare module "vue-router" {
  interface RouteMeta {
    /** The key of its title. */
    title?: string;
    needsLogin?: boolean;
    forGuests?: boolean;
    /** The screen of the main places that it belongs to. */
    within?: string;
  }
}

// The service knows these addresses, too: web/page.py.
export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: "/", name: "home", component: LandingView, meta: { forGuests: true } },
    {
      path: "/login",
      name: "login",
      component: () => import("./views/LoginView.vue"),
      meta: { title: "login.title", forGuests: true },
    },
    {
      path: "/register",
      name: "register",
      component: () => import("./views/RegisterView.vue"),
      meta: { title: "register.title", forGuests: true },
    },
    {
      path: "/reset-password",
      name: "reset",
      component: () => import("./views/ResetView.vue"),
      meta: { title: "reset.title" },
    },
    {
      path: "/confirm-email",
      name: "confirm",
      component: () => import("./views/ConfirmView.vue"),
      meta: { title: "confirm.title" },
    },
    {
      path: "/create",
      name: "create",
      component: () => import("./views/CreateView.vue"),
      meta: { title: "create.title", needsLogin: true },
    },
    {
      path: "/gallery",
      name: "gallery",
      component: () => import("./views/GalleryView.vue"),
      meta: { title: "gallery.title", needsLogin: true },
    },
    {
      path: "/images/:id(\\d+)",
      name: "image",
      component: () => import("./views/ImageView.vue"),
      meta: { title: "image.title", needsLogin: true, within: "gallery" },
    },
    {
      path: "/trash",
      name: "trash",
      component: () => import("./views/TrashView.vue"),
      meta: { title: "trash.title", needsLogin: true, within: "gallery" },
    },
    {
      path: "/shares",
      name: "shares",
      component: () => import("./views/SharesView.vue"),
      meta: { title: "shares.title", needsLogin: true, within: "gallery" },
    },
    {
      path: "/account",
      name: "account",
      component: () => import("./views/AccountView.vue"),
      meta: { title: "account.title", needsLogin: true },
    },
    {
      path: "/admin",
      component: () => import("./admin/AdminView.vue"),
      meta: { title: "admin.title", needsLogin: true },
      children: [
        { path: "", name: "admin", component: () => import("./admin/OverviewTab.vue") },
        { path: "users", name: "admin-users", component: () => import("./admin/UsersTab.vue") },
        { path: "jobs", name: "admin-jobs", component: () => import("./admin/JobsTab.vue") },
        { path: "queue", name: "admin-queue", component: () => import("./admin/QueueTab.vue") },
        { path: "invites", name: "admin-invites", component: () => import("./admin/InvitesTab.vue") },
        { path: "audit", name: "admin-audit", component: () => import("./admin/AuditTab.vue") },
      ],
    },
    { path: "/:rest(.*)", redirect: "/" },
  ],
  // The gallery itself goes back to the picture that one comes from.
  scrollBehavior(to, from, saved) {
    if (to.name === from.name || (to.name === "gallery" && from.name === "image")) return undefined;
    return saved ?? { top: 0 };
  },
});

router.beforeEach((to) => {
  const isLoggedIn = Boolean(api.session.token);
  if (to.meta.needsLogin && !isLoggedIn) return { name: "login", query: { next: to.fullPath } };
  // Whoever is logged in comes back from the provider to link it.
  const { loginCode, error } = to.query;
  if (to.name === "login" && isLoggedIn && (loginCode || error)) {
    return { name: "account", query: { loginCode, error }, hash: "#openid" };
  }
  if (to.meta.forGuests && isLoggedIn) return { name: "create" };
});

// A screen that did not load: there is no network, or the service has newer files than this page,
// which is then loaded anew; but not again and again.
const RELOAD_MILLISECONDS = 10_000;
router.onError((_, to) => {
  const key = "reloaded";
  const last = Number(sessionStorage.getItem(key));
  if (!navigator.onLine || Date.now() - last < RELOAD_MILLISECONDS) {
    tell(i18n.global.t("errors.offline"), { isError: true });
    return;
  }
  sessionStorage.setItem(key, String(Date.now()));
  location.assign(router.resolve(to).href);
});

/** The screen before this one. */
export const cameFrom = shallowRef<unknown>();

router.afterEach((to, from) => {
  if (to.name !== from.name) cameFrom.value = from.name;
  const title = to.meta.title ? `${i18n.global.t(to.meta.title)} · ` : "";
  document.title = title + i18n.global.t("name");
});
