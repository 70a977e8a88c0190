// What every form does: show the wrong fields at their places, focus the first, and say what else
// went wrong. Give each input the `name` that the API calls it by.

import { nextTick, ref, shallowRef, watch, type ShallowRef } from "vue";
import { ApiError } from "./api";
import { asError } from "./service";

export function useForm(form: Readonly<ShallowRef<HTMLFormElement | null>>) {
  const isBusy = ref(false);
  const wrong = ref<Record<string, string>>({});
  const error = shallowRef<ApiError | null>(null);

  let lastCheck = (): Record<string, string> => ({});

  // What was found wrong is judged again while it is mended.
  function judge({ target }: Event): void {
    const { name } = target as HTMLInputElement;
    if (!wrong.value[name]) return;
    const found = lastCheck()[name];
    if (found) wrong.value[name] = found;
    else delete wrong.value[name];
  }
  watch(form, (element) => element?.addEventListener("input", judge));

  /** Check first, then send. Returns whether all went well. */
  async function submit(check: () => Record<string, string>, send: () => Promise<void>): Promise<boolean> {
    if (isBusy.value) return false;
    error.value = null;
    lastCheck = check;
    wrong.value = check();
    if (Object.keys(wrong.value).length) {
      await focusFirst();
      return false;
    }
    isBusy.value = true;
    try {
      await send();
      return true;
    } catch (problem) {
      isBusy.value = false;
      const found = asError(problem);
      wrong.value = { ...found.fields };
      const hasField = Object.keys(found.fields).some((name) => input(name));
      // A sentence beside its field need not stand above the button as well.
      error.value = hasField && found.retryAfter === null ? null : found;
      await focusFirst();
      return false;
    } finally {
      isBusy.value = false;
    }
  }

  function input(name: string): HTMLElement | null {
    return form.value?.querySelector<HTMLElement>(`[name="${CSS.escape(name)}"]`) ?? null;
  }

  async function focusFirst(): Promise<void> {
    await nextTick();
    form.value?.querySelector<HTMLElement>('[aria-invalid="true"]')?.focus();
  }

  return { isBusy, wrong, error, submit };
}
