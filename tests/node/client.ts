// A program as users write it, with types made from the document of a running service. It prints
// what came of its calls; test_clients.py compiles and runs it: `node build/client.js URL`.
import createClient from "openapi-fetch";
import type { components, paths } from "./build/api.js";

type Generation = components["schemas"]["Generation"];
type ErrorCode = components["schemas"]["ErrorCode"];

declare const process: { argv: string[] };

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

const api = createClient<paths>({ baseUrl: process.argv[2]! });

async function register(username: string, password: string, avatar: Blob): Promise<string | null> {
  const { data, error } = await api.POST("/api/auth/register", {
    // The types know a file as a string.
    body: { username, password, email: `${username}@example.com`, avatar: avatar as unknown as string },
    bodySerializer: (fields) => {
      const form = new FormData();
      for (const [name, value] of Object.entries(fields)) form.append(name, value);
      return form;
    },
  });
  if (error) throw new Error(error.message);
  return data.data.avatarUrl;
}

async function logIn(username: string, password: string): Promise<string> {
  const { data, error } = await api.POST("/api/auth/login", { body: { username, password } });
  if (!error) return data.data.token;
  // @ts-expect-error: the types know that no log-in is refused like this.
  if (error.code === "quota_spent") return "";
  switch (error.code) {
    case "wrong_credentials":
      return "wrong";
    case "too_many_attempts":
    case "server_busy":
      return "later";
    default:
      throw new Error(error.message);
  }
}

async function generate(prompt: string, width?: number): Promise<Generation[] | ErrorCode> {
  // Every field but the prompt may be left out.
  const body = width === undefined ? { prompt } : { prompt, width };
  const { data, error } = await api.POST("/api/v1/images/generate", { body });
  if (!error) return data.data.records;
  if (error.code === "invalid_input" && !error.fields?.["width"]) throw new Error(error.message);
  return error.code;
}

async function history(): Promise<string[]> {
  const prompts: string[] = [];
  let query: NonNullable<paths["/api/v1/images/history"]["get"]["parameters"]["query"]> = {};
  for (;;) {
    const { data, error } = await api.GET("/api/v1/images/history", {
      params: { query: { ...query, per_page: 1 } },
    });
    if (error) throw new Error(error.message);
    prompts.push(...data.data.records.map((record) => record.prompt));
    const cursor = data.data.pagination.nextCursor;
    if (!cursor) return prompts;
    query = { cursor };
  }
}

const bytes = Uint8Array.from(atob(PNG), (character) => character.charCodeAt(0));
const avatar = await register("alice", "secret1", new Blob([bytes], { type: "image/png" }));
const refusal = await logIn("alice", "another");
const token = await logIn("alice", "secret1");
api.use({
  onRequest: ({ request }) => request.headers.set("Authorization", `Bearer ${token}`),
});
const submitted = [await generate("a fox"), await generate("a hen"), await generate("an owl", 9999)];
console.log(JSON.stringify({ avatar, refusal, submitted, history: await history() }));
