'use strict';

// An Express server as Anvil's. Nothing in here or below knows that it is measured.
const express = require('express');

const app = express();
app.use('/api/products', require('./api/products'));
app.use('/api/orders', require('./api/orders'));
app.get('/health', (request, response) => response.json({ ok: true }));

const server = app.listen(Number(process.env.PORT || 3000), process.env.HOST || '127.0.0.1', () => {
  const { address, port } = server.address();
  console.log(`listening on http://${address}:${port}`);
});
