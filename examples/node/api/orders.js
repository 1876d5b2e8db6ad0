'use strict';

const { Router, json } = require('express');

const router = Router();

router.post('/', json({ limit: '10kb' }), (request, response) => {
  const { product, amount } = request.body ?? {};
  if (!Number.isInteger(product) || !Number.isInteger(amount) || amount < 1) {
    response.status(400).json({ error: 'an order has a product and an amount' });
    return;
  }
  response.status(201).json({ product, amount });
});

// What a slow query does to a request: ?ms=150, at most 2 s.
router.get('/slow', (request, response) => {
  const ms = Math.min(2000, Math.max(0, Number(request.query.ms) || 0));
  setTimeout(() => response.json({ ms }), ms);
});

router.get('/broken', () => {
  throw new Error('this route is broken, so that there is something to count');
});

module.exports = router;
