'use strict';

const assert = require('node:assert');
const { once } = require('node:events');
const http = require('node:http');
const { test } = require('node:test');

const { greeter } = require('./server.js');

async function ask(path) {
  const server = http.createServer(greeter()).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    return await fetch(`http://127.0.0.1:${server.address().port}${path}`);
  } finally {
    server.close();
  }
}

test('who is named is greeted', async () => {
  const response = await ask('/hello/world');
  assert.deepStrictEqual(await response.json(), { hello: 'world' });
});

test('another path is unknown', async () => {
  assert.strictEqual((await ask('/goodbye')).status, 404);
});
