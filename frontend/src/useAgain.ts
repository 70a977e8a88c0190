// What passes by itself is tried again by itself: a service that could not be reached or said when to
// come back, a network that was away, a session that had ended.

import { onScopeDispose, watch } from "vue";
import type { ApiError } from "./api";
import { isLoggedIn } from "./service";
import { useCountdown } from "./useCountdown";

/** So long after no answer came, the service is asked again. */
const OFFLINE_SECONDS = 10;

/** Returns the seconds that are left until then. */
export function useAgain(error: () => ApiError | null | undefined, again: () => void) {
  const left = useCountdown(error, waitOf, again);
  const online = () => error() && again();
  addEventListener("online", online);
  onScopeDispose(() => removeEventListener("online", online));
  watch(isLoggedIn, (now) => now && error()?.endsSession && again());
  return left;
}

function waitOf(error: ApiError | null | undefined): number | null {
  return error?.code === "offline" ? OFFLINE_SECONDS : (error?.retryAfter ?? null);
}
