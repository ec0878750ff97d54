// The baseline in Node: panva's oidc-provider, the certified server that Node's users would take, set up as they would
// for throughput.
//
// POST /token with client_credentials costs one signature, as fastauth's does: the resource server below has its access
// tokens as JWTs, signed RS256 (2048 bits) or, with --alg ES256, on P-256, with a key made at start. For another
// resource the tokens are opaque; POST /token/introspection is measured with one of those, because oidc-provider
// refuses to introspect a JWT ("structured JWT Tokens cannot be introspected"): it looks an opaque one up, and verifies
// no signature. A refresh rotates the token of one of the grants that are made at start, without a browser, and signs
// one access token, as fastauth's does.
//
// What was done to make it fast: NODE_ENV=production (node_server.py sets it), state in the process's own memory, no
// logging, no browser pages, no optional feature that is not asked for, one client that authenticates with its secret,
// keep-alive connections that are not closed between requests, and one process for one core.
//
// What it deliberately does not do: nothing is durable, because a Map in memory is the fastest adapter there is (with
// Redis, which the manual asks for in production, each of these requests would cost round trips more); nothing is
// limited, audited or counted; no user logs in. oidc-provider's own adapter in memory, for development, holds 1000
// entries, and walks all the tokens of a grant whenever it writes one; the one below does neither.
//
// It runs on the Node 22 that package.json asks npm for, the oldest that oidc-provider 9 supports.
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';

import { Provider } from 'oidc-provider';

const ACCESS_S = 3600;
const REFRESH_S = 86_400;
const MAX_ENTRIES = 500_000; // of one model; the oldest goes, which in a chain of refreshes is long used
const OPAQUE = 'urn:baseline:opaque';
const JWT = 'urn:baseline:jwt';
const CLIENT = 'baseline';
const SECRET = process.env.BASELINE_SECRET; // of no worth outside this run; node_server.py makes it
const ISSUER = 'http://127.0.0.1';

function stop(message) {
  console.error(message);
  process.exit(2);
}

function arguments_() {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: 'string', default: '0' },
        alg: { type: 'string', default: 'RS256' },
        sessions: { type: 'string', default: '32' },
      },
    });
    const port = Number(values.port);
    const sessions = Number(values.sessions);
    if (!Number.isInteger(port) || port < 0 || port > 65_535) stop('--port must be from 0 to 65535');
    if (!['RS256', 'ES256'].includes(values.alg)) stop('--alg must be RS256 or ES256');
    if (!Number.isInteger(sessions) || sessions < 0 || sessions > 1024) stop('--sessions must be from 0 to 1024');
    if (!SECRET) stop('BASELINE_SECRET must be set');
    return { port, alg: values.alg, sessions };
  } catch (error) {
    return stop(error.message);
  }
}

// State in memory: what oidc-provider asks of an adapter, for the models that are used here.
class MemoryAdapter {
  static stores = new Map();

  constructor(model) {
    this.store = MemoryAdapter.stores.get(model) ?? new Map();
    MemoryAdapter.stores.set(model, this.store);
  }

  async upsert(id, payload, expiresIn) {
    this.store.set(id, { payload, expiresAt: expiresIn ? Date.now() + expiresIn * 1000 : Infinity });
    if (this.store.size > MAX_ENTRIES) this.store.delete(this.store.keys().next().value);
  }

  async find(id) {
    const found = this.store.get(id);
    return found && found.expiresAt > Date.now() ? found.payload : undefined;
  }

  async consume(id) {
    const found = this.store.get(id);
    if (found) found.payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    this.store.delete(id);
  }

  async revokeByGrantId(grantId) {
    for (const [id, { payload }] of this.store) if (payload.grantId === grantId) this.store.delete(id);
  }

  async findByUid() {} // sessions in a browser and the device flow, of which there are none

  async findByUserCode() {}
}

function signingKey(alg) {
  const { privateKey } = alg === 'RS256'
    ? generateKeyPairSync('rsa', { modulusLength: 2048 })
    : generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg };
}

function resourceServer(resource, alg) {
  const shared = { scope: 'user', audience: resource, accessTokenTTL: ACCESS_S };
  return resource === JWT
    ? { ...shared, accessTokenFormat: 'jwt', jwt: { sign: { alg } } }
    : { ...shared, accessTokenFormat: 'opaque' };
}

function newProvider(alg) {
  return new Provider(ISSUER, {
    adapter: MemoryAdapter,
    jwks: { keys: [signingKey(alg)] },
    cookies: { keys: [SECRET] },
    clients: [{
      client_id: CLIENT,
      client_secret: SECRET,
      token_endpoint_auth_method: 'client_secret_basic',
      grant_types: ['client_credentials', 'authorization_code', 'refresh_token'],
      redirect_uris: ['https://client.example/callback'],
      response_types: ['code'],
      scope: 'openid offline_access user',
      id_token_signed_response_alg: alg,
    }],
    scopes: ['openid', 'offline_access', 'user'],
    rotateRefreshToken: true,
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    ttl: { AccessToken: ACCESS_S, ClientCredentials: ACCESS_S, RefreshToken: REFRESH_S, Grant: REFRESH_S },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      introspection: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => JWT,
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx, resource) => resourceServer(resource, alg),
      },
    },
  });
}

// One grant and its first refresh token, as the end of a code flow would have left them.
async function refreshToken(provider, number) {
  const client = await provider.Client.find(CLIENT);
  const accountId = `user-${number}`;
  const grant = new provider.Grant({ accountId, clientId: CLIENT });
  grant.addOIDCScope('offline_access');
  grant.addResourceScope(JWT, 'user');
  const grantId = await grant.save();
  const token = new provider.RefreshToken({
    accountId, client, grantId, gty: 'authorization_code', scope: 'offline_access user', resource: JWT,
    authTime: Math.floor(Date.now() / 1000), rotations: 0,
  });
  return token.save();
}

const { port, alg, sessions } = arguments_();
const provider = newProvider(alg);
const refreshTokens = [];
for (let number = 0; number < sessions; number += 1) refreshTokens.push(await refreshToken(provider, number));

const server = createServer(provider.callback());
server.keepAliveTimeout = 60_000;
server.on('error', (error) => stop(`could not listen: ${error.message}`));
server.listen(port, '127.0.0.1', () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  console.log(`ready ${JSON.stringify({ url, refresh_tokens: refreshTokens, node: process.version })}`);
});
for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, () => {
    server.close(() => process.exit(0));
    server.closeIdleConnections();
  });
}
