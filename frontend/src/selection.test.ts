import { nextTick, shallowRef } from "vue";
import { expect, test } from "vitest";
import { between, useSelection } from "./selection";

test("from one to another, whichever comes first", () => {
  expect(between([5, 4, 3, 2], 4, 2)).toEqual([4, 3, 2]);
  expect(between([5, 4, 3, 2], 2, 4)).toEqual([4, 3, 2]);
  expect(between([5, 4, 3, 2], 9, 4)).toEqual([4]);
});

test("a range is added to what is chosen already", () => {
  const { chosen, toggle } = useSelection(() => [1, 2, 3, 4, 5, 6]);
  toggle(1);
  toggle(3);
  toggle(5, true);
  expect([...chosen.value].sort()).toEqual([1, 3, 4, 5]);
  toggle(4);
  expect([...chosen.value].sort()).toEqual([1, 3, 5]);
});

test("what has gone is not chosen any more", async () => {
  const ids = shallowRef([1, 2, 3]);
  const { chosen, chooseAll, isSelecting } = useSelection(() => ids.value);
  chooseAll();
  ids.value = [1, 3];
  await nextTick();
  expect([[...chosen.value], isSelecting.value]).toEqual([[1, 3], true]);
});
