// What somebody paints on a picture to say where it shall change: a list of steps, which can be
// undone, and how they are painted. Painted is what shall change; the PNG that is sent is clear there.

export interface Point {
  x: number;
  y: number;
  /** How wide the brush is here, in pixels of the picture. */
  width: number;
}

export type Step = { kind: "stroke"; erases: boolean; points: Point[] } | { kind: "invert" } | { kind: "clear" };

export class Steps {
  private readonly all: Step[] = [];
  private count = 0;

  get done(): Step[] {
    return this.all.slice(0, this.count);
  }
  get canUndo(): boolean {
    return this.count > 0;
  }
  get canRedo(): boolean {
    return this.count < this.all.length;
  }

  add(step: Step): void {
    this.all.splice(this.count, Infinity, step);
    this.count += 1;
  }
  undo(): void {
    this.count = Math.max(0, this.count - 1);
  }
  redo(): void {
    this.count = Math.min(this.all.length, this.count + 1);
  }
}

type Pen = CanvasRenderingContext2D;
const INK = "#d0021b";

export function paintStep(pen: Pen, step: Step): void {
  const { width, height } = pen.canvas;
  pen.fillStyle = pen.strokeStyle = INK;
  if (step.kind === "clear") pen.clearRect(0, 0, width, height);
  else if (step.kind === "stroke") paintStroke(pen, step.points, step.erases);
  else {
    pen.globalCompositeOperation = "source-out";
    pen.fillRect(0, 0, width, height);
  }
  pen.globalCompositeOperation = "source-over";
}

/** Paint points and the lines between them. */
export function paintStroke(pen: Pen, points: Point[], erases: boolean): void {
  pen.globalCompositeOperation = erases ? "destination-out" : "source-over";
  pen.fillStyle = pen.strokeStyle = INK;
  pen.lineCap = pen.lineJoin = "round";
  for (const [index, point] of points.entries()) {
    pen.beginPath();
    const before = points[index - 1];
    if (before) {
      pen.moveTo(before.x, before.y);
      pen.lineTo(point.x, point.y);
      pen.lineWidth = point.width;
      pen.stroke();
    } else {
      pen.arc(point.x, point.y, point.width / 2, 0, 2 * Math.PI);
      pen.fill();
    }
  }
  pen.globalCompositeOperation = "source-over";
}

export function paintAll(pen: Pen, base: CanvasImageSource | null, steps: Step[]): void {
  const { width, height } = pen.canvas;
  pen.clearRect(0, 0, width, height);
  if (base) pen.drawImage(base, 0, 0);
  for (const step of steps) paintStep(pen, step);
}

/** So many rows are looked at together: all at once would be 200 MB of a large picture. */
const ROWS = 256;

/** The painted part, from 0 to 1; 0 only if there is nothing that is wholly painted. */
export function partOf(pen: Pen): number {
  const { width, height } = pen.canvas;
  let painted = 0;
  for (let top = 0; top < height; top += ROWS) {
    const rows = Math.min(ROWS, height - top);
    painted += countPainted(pen.getImageData(0, top, width, rows).data);
  }
  return painted / (width * height);
}

export function countPainted(data: Uint8ClampedArray): number {
  let count = 0;
  for (let index = 3; index < data.length; index += 4) if (data[index] === 255) count += 1;
  return count;
}

/** A PNG of the picture's size: black, and clear where it shall change. */
export function toMask(painted: HTMLCanvasElement): Promise<Blob> {
  const canvas = turnedOver(painted, painted.width, painted.height, "#000");
  return new Promise((resolve, reject) => {
    const take = (blob: Blob | null) => (blob ? resolve(blob) : reject(new Error("no memory for the mask")));
    canvas.toBlob(take, "image/png");
  });
}

/** The other way round: what a mask says, as it is painted. */
export function fromMask(mask: CanvasImageSource, width: number, height: number): HTMLCanvasElement {
  return turnedOver(mask, width, height, INK);
}

/** This colour wherever the source is clear. */
function turnedOver(source: CanvasImageSource, width: number, height: number, colour: string): HTMLCanvasElement {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const pen = canvas.getContext("2d")!;
  pen.fillStyle = colour;
  pen.fillRect(0, 0, width, height);
  pen.globalCompositeOperation = "destination-out";
  pen.drawImage(source, 0, 0, width, height);
  return canvas;
}
