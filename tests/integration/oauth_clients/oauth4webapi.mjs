// What an application does with oauth4webapi; the order comes as JSON on standard input, the report goes out as JSON.
import * as oauth from 'oauth4webapi'
import { readFileSync } from 'node:fs'

const { issuer, clientId, clientSecret, refreshToken } = JSON.parse(readFileSync(0))
const report = {}
const insecure = { [oauth.allowInsecureRequests]: true }
const url = new URL(issuer)
const server = await oauth.processDiscoveryResponse(
  url,
  await oauth.discoveryRequest(url, { algorithm: 'oauth2', ...insecure }),
)

const client = { client_id: clientId }
for (const [name, authentication] of Object.entries({
  basic: oauth.ClientSecretBasic(clientSecret),
  post: oauth.ClientSecretPost(clientSecret),
})) {
  const introspect = async (token) =>
    oauth.processIntrospectionResponse(
      server,
      client,
      await oauth.introspectionRequest(server, client, authentication, token, insecure),
    )
  const tokens = await oauth.processClientCredentialsResponse(
    server,
    client,
    await oauth.clientCredentialsGrantRequest(server, client, authentication, { scope: 'a' }, insecure),
  )
  const before = await introspect(tokens.access_token)
  await oauth.processRevocationResponse(
    await oauth.revocationRequest(server, client, authentication, tokens.access_token, insecure),
  )
  const after = await introspect(tokens.access_token)
  report[name] = { scope: tokens.scope, before: before.active, client: before.client_id, after: after.active }
}

const app = { client_id: 'fastauth' }
const refresh = async (token) =>
  oauth.processRefreshTokenResponse(
    server,
    app,
    await oauth.refreshTokenGrantRequest(server, app, oauth.None(), token, insecure),
  )
const second = await refresh(refreshToken)
const third = await refresh(second.refresh_token)
report.refresh = new Set([refreshToken, second.refresh_token, third.refresh_token]).size
await oauth.processRevocationResponse(
  await oauth.revocationRequest(server, app, oauth.None(), third.refresh_token, insecure),
)
try {
  await refresh(third.refresh_token)
} catch (error) {
  report.revoked = error.error
}
try {
  const wrong = oauth.ClientSecretBasic('wrong')
  await oauth.processClientCredentialsResponse(
    server,
    client,
    await oauth.clientCredentialsGrantRequest(server, client, wrong, {}, insecure),
  )
} catch (error) {
  report.wrong = error.cause?.[0]?.scheme ?? error.error ?? error.code
}
console.log(JSON.stringify(report))
