'use strict';

const { Router } = require('express');

const products = [
  { id: 1, name: 'anvil', price: 120 },
  { id: 2, name: 'hammer', price: 30 },
  { id: 3, name: 'tongs', price: 25 },
];

const router = Router();

router.get('/', (request, response) => response.json(products));

router.get('/:id', (request, response) => {
  const product = products.find((each) => String(each.id) === request.params.id);
  if (product) response.json(product);
  else response.status(404).json({ error: 'no such product' });
});

module.exports = router;
