// Copy this folder into a project of your own, or take it as a module from a running service:
// `import { createClient } from "https://host/assets/api.js"`.
export { ApiError, readRetryAfter } from "./errors";
export { createClient, newKey, type Answer, type Client, type ClientOptions, type Waiting } from "./client";
export { addUpload, checkPicture, MEDIA_TYPES, type ImageSource, type Upload } from "./inputs";
export { createWatcher, isFinished, type Generation } from "./watch";
export { readClaims, Session } from "./session";
