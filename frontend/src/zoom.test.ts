import { expect, test } from "vitest";
import { FIT, roomOf, within, zoom } from "./zoom";

const room = roomOf({ width: 1000, height: 500 }, 2000, 1000);

test("a picture fits its stage, and a small one is not blown up", () => {
  expect([room.pictureWidth, room.pictureHeight]).toEqual([1000, 500]);
  expect(roomOf({ width: 1000, height: 1000 }, 100, 50).pictureWidth).toBe(200);
});

test("what is under the pointer stays under it", () => {
  const point = { x: 200, y: 100 };
  const larger = zoom(FIT, 2, point, room);
  // The same spot of the picture: its distance from the middle, by the scale.
  expect([(point.x - larger.x) / larger.scale, (point.y - larger.y) / larger.scale]).toEqual([200, 100]);
  expect(zoom(larger, 1, point, room)).toEqual(FIT);
});

test("a picture is neither lost from the stage nor made too large", () => {
  expect(within({ scale: 2, x: 9999, y: -9999 }, room)).toEqual({ scale: 2, x: 500, y: -250 });
  expect(zoom(FIT, 1000, FIT, room).scale).toBe(room.most);
  expect(zoom(FIT, 0.1, { x: 50, y: 50 }, room)).toEqual(FIT);
});
