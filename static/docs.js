// validatorUrl: a public server would otherwise be told the address of this document.
// requestInterceptor: calls go to where the page is from, whatever a proxy told the service of it:
// its scheme, its host, and the path below which the service lies.
const root = location.pathname.replace(/\/api\/docs\/?$/, "");

SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => {
    const { pathname, search } = new URL(request.url, location.href);
    const path = pathname.startsWith(root + "/") ? pathname : root + pathname;
    request.url = location.origin + path + search;
    return request;
  },
});
