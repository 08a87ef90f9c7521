'use strict';

const express = require('express');

/** An application that greets. */
function greeter() {
  const app = express();
  app.get('/hello/:name', (request, response) => response.json({ hello: request.params.name }));
  return app;
}

module.exports = { greeter };

if (require.main === module) {
  greeter().listen(process.env.PORT || 8080);
}
