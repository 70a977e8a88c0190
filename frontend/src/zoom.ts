// Where a picture stands on its stage: how large, and how far from the middle. Points are counted
// from the middle of the stage.

export interface Place {
  /** 1: as large as fits. */
  scale: number;
  x: number;
  y: number;
}

export interface Room {
  /** Of the stage. */
  width: number;
  height: number;
  /** Of the picture at scale 1. */
  pictureWidth: number;
  pictureHeight: number;
  /** The largest scale. */
  most: number;
}

export const FIT: Place = { scale: 1, x: 0, y: 0 };
/** A small picture is shown larger than it is, but not so large that it blurs. */
const MOST_ENLARGED = 2;

/** The room of a picture of so many pixels on a stage; fitting, it keeps so far from the edges. */
export function roomOf(stage: { width: number; height: number }, width: number, height: number, margin = 0): Room {
  const [wide, high] = [stage.width - 2 * margin, stage.height - 2 * margin];
  const fit = Math.max(0.001, Math.min(wide / width, high / height, MOST_ENLARGED));
  return { ...stage, pictureWidth: width * fit, pictureHeight: height * fit, most: Math.max(4, 4 / fit) };
}

/** No edge of the picture comes further in than the edge of the stage, unless it is smaller. */
export function within({ scale, x, y }: Place, room: Room): Place {
  const fitting = Math.min(room.most, Math.max(1, scale));
  const spareX = Math.max(0, (room.pictureWidth * fitting - room.width) / 2);
  const spareY = Math.max(0, (room.pictureHeight * fitting - room.height) / 2);
  const limit = (value: number, spare: number) => Math.min(spare, Math.max(-spare, value));
  return { scale: fitting, x: limit(x, spareX), y: limit(y, spareY) };
}

/** Make it larger or smaller; what is under the point stays there. */
export function zoom(place: Place, scale: number, point: { x: number; y: number }, room: Room): Place {
  const wanted = Math.min(room.most, Math.max(1, scale));
  const factor = wanted / place.scale;
  const x = point.x - (point.x - place.x) * factor;
  const y = point.y - (point.y - place.y) * factor;
  return within({ scale: wanted, x, y }, room);
}
