// A screen that did not get what it shows tries again by itself: when the network is back, and when
// somebody has logged in again.

import { onUnmounted, watch } from "vue";
import type { ApiError } from "./api";
import { isLoggedIn } from "./service";

export function useRecovery(error: () => ApiError | null, again: () => void): void {
  const retry = () => error() && again();
  addEventListener("online", retry);
  onUnmounted(() => removeEventListener("online", retry));
  watch(isLoggedIn, (now) => now && retry());
}
