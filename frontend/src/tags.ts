// The tags of one's pictures: those that there are, to complete what is typed, and how they change.

import { ref, shallowRef, watch } from "vue";
import { updateTags } from "./gallery";
import { inParts } from "./pictures";
import { api, user } from "./service";

export const MOST_CHARACTERS = 40;
export const MOST_TAGS = 20;

/** The most used first. */
export const tags = shallowRef<{ tag: string; count: number }[]>([]);
/** Whether it is known, or cannot be known, which there are. */
export const areTagsKnown = ref(false);

export async function loadTags(): Promise<void> {
  try {
    tags.value = (await api.call("get", "/api/v1/tags")).data.tags;
  } finally {
    areTagsKnown.value = true;
  }
}

/** Add tags to pictures and remove others; returns the tags that each has now. */
export async function tagMany(ids: number[], add: string[], remove: string[]): Promise<Map<number, string[]>> {
  const now = new Map<number, string[]>();
  try {
    await inParts(ids, async (part) => {
      const { data } = await api.call("post", "/api/v1/images/tags", { body: { ids: part, add, remove } });
      for (const image of data.images) now.set(image.id, image.tags);
    });
  } finally {
    updateTags(now);
    loadTags().catch(() => {});
  }
  return now;
}

/** As the service compares them: without case, in one Unicode form. */
export const fold = (tag: string) => tag.normalize("NFKC").toLowerCase().trim();

/** What goes on with what is typed, and is not there already: those that begin so come first. */
export function complete(typed: string, taken: string[], most = 8): string[] {
  const start = fold(typed);
  const used = new Set(taken.map(fold));
  const fitting = tags.value
    .map(({ tag }) => ({ tag, at: fold(tag).indexOf(start) }))
    .filter(({ tag, at }) => at >= 0 && !used.has(fold(tag)));
  return [...fitting.filter(({ at }) => at === 0), ...fitting.filter(({ at }) => at > 0)]
    .slice(0, most)
    .map(({ tag }) => tag);
}

watch(user, (now, before) => {
  if (before && now?.id !== before.id) tags.value = [];
});
