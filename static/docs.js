// validatorUrl: a public server would otherwise be told the address of this document.
// requestInterceptor: calls go to where the page is from, whatever a proxy told the service of it.
SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  validatorUrl: null,
  requestInterceptor: (request) => {
    const { pathname, search } = new URL(request.url, location.href);
    request.url = location.origin + pathname + search;
    return request;
  },
});
