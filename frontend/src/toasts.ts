// Short messages at the edge of the screen, read out as well; one may offer to undo what was done.

import { reactive } from "vue";

export interface Toast {
  id: number;
  text: string;
  isError: boolean;
  action?: { label: string; run: () => void };
}

export const toasts = reactive<Toast[]>([]);
let last = 0;

export function tell(text: string, options: { isError?: boolean; action?: Toast["action"] } = {}): void {
  const id = ++last;
  toasts.push({ id, text, isError: options.isError ?? false, action: options.action });
  // What can be undone stays long enough to reach it by keyboard.
  setTimeout(() => dismiss(id), options.action ? 12_000 : 5_000);
}

export function dismiss(id: number): void {
  const index = toasts.findIndex((toast) => toast.id === id);
  if (index >= 0) toasts.splice(index, 1);
}
