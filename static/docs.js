// validatorUrl: a public server would otherwise be told the address of this document.
SwaggerUIBundle({ url: "/api/openapi.json", dom_id: "#docs", deepLinking: true, validatorUrl: null });
