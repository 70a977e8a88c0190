// One watcher for the whole page: whatever screen started a picture, all screens see it grow.

import { createWatcher, isFinished, type Generation } from "./api";
import { api, status } from "./service";

type Listener = (records: Generation[], gone: number[]) => void;
const listeners = new Set<Listener>();

const watcher = createWatcher(api, {
  onRecords: (records, gone) => {
    for (const listener of listeners) listener(records, gone);
  },
  onConnection: (isLost) => (status.isOffline = isLost),
});

export function follow(records: Generation[]): void {
  const unfinished = records.filter((record) => !isFinished(record));
  if (unfinished.length) watcher.add(unfinished.map((record) => record.id));
}

export function onRecords(listener: Listener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

api.session.onChange((token) => {
  if (!token) watcher.clear();
});
