/** The code that a mailed link brought behind its #, which no server ever saw; taken out of the address. */
export function codeOfAddress(): string {
  const code = new URLSearchParams(location.hash.slice(1)).get("code") ?? "";
  if (code) history.replaceState(history.state, "", location.pathname + location.search);
  return code;
}
