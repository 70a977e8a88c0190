// A finger that stays where it is: what a mouse does by other means.

/** Longer, and people let go; shorter, and they choose what they only wanted to open. */
const MILLISECONDS = 450;
const STILL_PIXELS = 10;
/** So much later, a click is another one. */
const CLICK_MILLISECONDS = 400;

export function useLongPress(onLong: (target: EventTarget | null) => void) {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let start = { x: 0, y: 0 };
  let isLong = false;

  const cancel = () => clearTimeout(timer);

  function down(event: PointerEvent): void {
    cancel();
    isLong = false;
    if (event.pointerType === "mouse" || !event.isPrimary) return;
    start = { x: event.clientX, y: event.clientY };
    timer = setTimeout(() => {
      isLong = true;
      onLong(event.target);
    }, MILLISECONDS);
  }

  function move(event: PointerEvent): void {
    if (Math.hypot(event.clientX - start.x, event.clientY - start.y) > STILL_PIXELS) cancel();
  }

  function up(): void {
    cancel();
    if (isLong) timer = setTimeout(() => (isLong = false), CLICK_MILLISECONDS);
  }

  return {
    listeners: {
      pointerdown: down,
      pointermove: move,
      pointerup: up,
      pointercancel: cancel,
      // Some browsers show a menu of the link instead.
      contextmenu: (event: Event) => isLong && event.preventDefault(),
    },
    /** Whether the click that comes now ends a long press, which has had its effect already. */
    wasLong(): boolean {
      const was = isLong;
      isLong = false;
      return was;
    },
  };
}
