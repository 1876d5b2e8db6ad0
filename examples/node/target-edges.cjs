'use strict';

// In place of @opentelemetry/auto-instrumentations-node/register: the same, with a histogram edge at each limit in
// TARGET_EDGES (seconds, by default 0.2). OpenTelemetry for Node has no environment variable for that.
const { NodeSDK, metrics } = require('@opentelemetry/sdk-node');
const { getNodeAutoInstrumentations } = require('@opentelemetry/auto-instrumentations-node');

const limits = (process.env.TARGET_EDGES || '0.2').split(',').map(Number);
const standard = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];
const boundaries = [...new Set([...standard, ...limits])].sort((one, two) => one - two);
const type = metrics.AggregationType.EXPLICIT_BUCKET_HISTOGRAM;
const views = [{ instrumentName: 'http.server.request.duration', aggregation: { type, options: { boundaries } } }];
const sdk = new NodeSDK({ instrumentations: getNodeAutoInstrumentations(), views });
sdk.start();

// The last numbers are sent, and then the process ends as it would have without us, unless the server has its own way.
process.once('SIGTERM', () => {
  const alone = process.listenerCount('SIGTERM') === 0;
  sdk.shutdown().catch(() => {}).finally(() => alone && process.kill(process.pid, 'SIGTERM'));
});
