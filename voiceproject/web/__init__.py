"""What all HTTP views share: errors, limits on bodies, downloads, middleware, the OpenAPI schema, the web server."""
